"""ModelService over gRPC."""

from __future__ import annotations

from mlx_grpc.auth.access import Access
from mlx_grpc.auth.tokens import TokenScope
from mlx_grpc.errors import InvalidField, WrongScope
from mlx_grpc.rpc.context import Context, authorization_of
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import model_pb2, model_service_pb2_grpc
from mlx_grpc.v1 import model_service_pb2 as pb

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

_STATES = {
    ModelState.UNLOADED: model_pb2.MODEL_STATE_UNLOADED,
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.READY: model_pb2.MODEL_STATE_READY,
    ModelState.UNLOADING: model_pb2.MODEL_STATE_UNLOADING,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}

_BATCHING = {
    "PADDED": model_pb2.BATCHING_PADDED,
    "ALIGNED": model_pb2.BATCHING_ALIGNED,
    "ALONE": model_pb2.BATCHING_ALONE,
}


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Lists for everybody; loads and unloads for whom the server's operator allows it."""

    def __init__(self, service: Service, allow_management: bool, access: Access) -> None:
        self._catalog = service.catalog
        self._allow_management = allow_management
        self._access = access

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """A page of models; the token is the id that the page before ended with."""
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        if not 1 <= size <= MAX_PAGE_SIZE:
            raise InvalidField(f"page_size is {size}, which must be from 1 to {MAX_PAGE_SIZE}", field="page_size")
        hosts = [host for host in self._catalog.hosts if host.source.id > request.page_token]
        page = hosts[:size]
        return pb.ListModelsResponse(
            models=[self._model(host) for host in page],
            next_page_token=page[-1].source.id if len(hosts) > size else "",
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """One model."""
        return pb.GetModelResponse(model=self._model(self._catalog.get(request.model)))

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:
        """Starts to load."""
        self._check_allowed(context)
        return pb.LoadModelResponse(model=self._model(self._catalog.load(request.model)))

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:
        """Starts to unload."""
        self._check_allowed(context)
        return pb.UnloadModelResponse(model=self._model(self._catalog.unload(request.model, request.force)))

    def _check_allowed(self, context: Context) -> None:
        if self._allow_management:
            return
        if not self._access.needs_tokens:
            raise WrongScope("this server was not started with --allow-model-management")
        self._access.require(authorization_of(context.invocation_metadata()), TokenScope.ADMIN)

    def _model(self, host: ModelHost) -> model_pb2.Model:
        model = model_pb2.Model(
            id=host.source.id,
            state=_STATES[host.life.state],
            error=host.life.error,
            revision=host.located.revision if host.located else "",
            default=host.source.id == self._catalog.default_id,
        )
        info = host.info
        if info is not None:
            model.context_length = host.context_length
            model.vocab_size = info.vocab_size
            model.dtype = info.dtype
            model.weights_bytes = info.weights_bytes
            model.kv_bytes_per_token = info.kv_bytes_per_token
            model.batching = _BATCHING.get(info.batching, model_pb2.BATCHING_UNSPECIFIED)
            if host.tokenizer is not None and host.tokenizer.chat_template is not None:
                model.features.append(model_pb2.MODEL_FEATURE_CHAT)
            if info.reproducible:
                model.features.append(model_pb2.MODEL_FEATURE_REPRODUCIBLE)
        return model
