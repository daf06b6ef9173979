"""The client for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import grpc

from mlx_grpc.client import calls
from mlx_grpc.client.base import BaseClient, like
from mlx_grpc.client.errors import Cancelled, from_rpc_error
from mlx_grpc.client.requests.options import GenerateOptions
from mlx_grpc.client.results import responses
from mlx_grpc.client.results.data import HealthStatus, Model
from mlx_grpc.client.streams import Stream, Watch
from mlx_grpc.client.stubs import Stubs
from mlx_grpc.errors import MlxGrpcError, ModelNotFound

P = ParamSpec("P")
Result = TypeVar("Result")


def _blocking(make: Callable[P, calls.Unary[Result]]) -> Callable[Concatenate[Client, P], Result]:
    """The method of `Client` for a call."""

    def method(client: Client, *args: P.args, **kwargs: P.kwargs) -> Result:
        return client._call(make(*args, **kwargs))

    return like(make, method)


class Client(BaseClient):
    """Calls a server from threads, which may share it. It connects at its first call; close it, or use
    `with`.

    Arguments: see `BaseClient`. Every method raises classes of `mlx_grpc.errors`.
    """

    generate = _blocking(calls.generate)
    tokenize = _blocking(calls.tokenize)
    detokenize = _blocking(calls.detokenize)
    count_tokens = _blocking(calls.count_tokens)
    render_chat = _blocking(calls.render_chat)
    get_model = _blocking(calls.get_model)
    load_model = _blocking(calls.load_model)
    unload_model = _blocking(calls.unload_model)
    server_info = _blocking(calls.server_info)

    def stream(
        self,
        prompt: str | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """Starts to generate and returns the events as they come. Leaving the stream cancels the call."""
        return Stream(*self._start_stream(prompt, timeout_seconds, options))

    def list_models(self, *, page_size: int | None = None, timeout_seconds: float | None = None) -> Iterator[Model]:
        """All models that the server knows, asked for page by page; `timeout_seconds` is for each page."""
        page_token = ""
        while True:
            page = self._call(calls.list_models_page(page_size, page_token, timeout_seconds))
            yield from map(responses.model, page.models)
            page_token = page.next_page_token
            if not page_token:
                return

    def health(self, service: str = "", *, timeout_seconds: float | None = None) -> HealthStatus:
        """The health of "" (the process), "mlx_grpc.v1.InferenceService" or "models/<id>".

        SERVICE_UNKNOWN for a name that the server does not know.
        """
        try:
            return self._call(calls.health_check(service, timeout_seconds))
        except ModelNotFound:
            return HealthStatus.SERVICE_UNKNOWN

    def watch(self, service: str = "", *, timeout_seconds: float | None = None) -> Watch:
        """The health of a service, now and whenever it changes. Leaving it cancels the call."""
        return Watch(*self._start_watch(service, timeout_seconds))

    def close(self) -> None:
        """Closes the channel and cancels what still runs on it. May be called twice."""
        with self._lock:
            self._closed = True
            channel, self._channel, self._open_stubs = self._channel, None, None
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _stubs(self) -> Stubs:
        with self._lock:
            if self._closed:
                raise MlxGrpcError("the client is closed")
            if self._open_stubs is None:
                self._channel = self._settings.open_sync()
                self._open_stubs = Stubs(self._channel)
            return self._open_stubs

    def _call(self, unary: calls.Unary[Result]) -> Result:
        method = getattr(getattr(self._stubs, unary.service), unary.method)
        call = self._start(method.future, unary.request, unary.timeout_seconds)
        done: SimpleQueue[Any] = SimpleQueue()
        call.add_done_callback(done.put)
        try:
            done.get()  # and not in result(): see `pump` for what Ctrl-C does there
            answer = call.result()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except grpc.FutureCancelledError as error:
            raise Cancelled("the client was closed during the call") from error
        except BaseException:
            call.cancel()
            raise
        return unary.decode(answer)
