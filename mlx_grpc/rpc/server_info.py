"""ServerService over gRPC."""

from __future__ import annotations

from mlx_grpc import __version__
from mlx_grpc.config import Config
from mlx_grpc.rpc.context import Context
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import server_pb2, server_service_pb2_grpc
from mlx_grpc.v1 import server_service_pb2 as pb


class ServerInfoServicer(server_service_pb2_grpc.ServerServiceServicer):
    """Tells what the server is."""

    def __init__(self, service: Service, config: Config) -> None:
        self._catalog = service.catalog
        self._config = config

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        """Versions and device are the engine's word, so they are empty until one has loaded a model."""
        config = self._config
        answer = pb.GetServerInfoResponse(
            version=__version__,
            limits=server_pb2.ServerLimits(
                max_queue=config.max_queue,
                max_queue_tokens=config.max_queue_tokens,
                max_batch=config.max_batch,
                max_request_bytes=config.max_request_bytes,
                default_max_tokens=config.default_max_tokens,
                client_requests_per_minute=config.client_requests_per_minute,
                client_tokens_per_minute=config.client_tokens_per_minute,
                client_rows=config.client_rows,
                client_waiting=config.client_waiting,
            ),
            default_model=self._catalog.default_id,
        )
        if config.allow_model_management:
            answer.features.append(server_pb2.SERVER_FEATURE_MODEL_MANAGEMENT)
        info = next((host.info for host in self._catalog.hosts if host.info), None)
        if info is not None:
            answer.mlx_version, answer.mlx_lm_version = info.mlx_version, info.mlx_lm_version
            answer.device, answer.backend = info.device, info.backend
        return answer
