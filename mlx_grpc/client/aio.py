"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import grpc.aio

from mlx_grpc.client import calls
from mlx_grpc.client.base import BaseClient, like
from mlx_grpc.client.errors import from_rpc_error
from mlx_grpc.client.requests.options import GenerateOptions
from mlx_grpc.client.results import responses
from mlx_grpc.client.results.data import HealthStatus, Model
from mlx_grpc.client.streams import AsyncStream, AsyncWatch
from mlx_grpc.client.stubs import Stubs
from mlx_grpc.errors import MlxGrpcError, ModelNotFound

P = ParamSpec("P")
Result = TypeVar("Result")


def _awaitable(
    make: Callable[P, calls.Unary[Result]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Result]]:
    """The method of `AsyncClient` for a call."""

    async def method(client: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> Result:
        return await client._call(make(*args, **kwargs))

    return like(make, method)


class AsyncClient(BaseClient):
    """Calls a server from one event loop. It connects at its first call; close it, or use `async with`.

    Arguments: see `BaseClient`. The methods are those of `Client`, awaitable; cancelling the task cancels
    the call.
    """

    generate = _awaitable(calls.generate)
    tokenize = _awaitable(calls.tokenize)
    detokenize = _awaitable(calls.detokenize)
    count_tokens = _awaitable(calls.count_tokens)
    render_chat = _awaitable(calls.render_chat)
    get_model = _awaitable(calls.get_model)
    load_model = _awaitable(calls.load_model)
    unload_model = _awaitable(calls.unload_model)
    server_info = _awaitable(calls.server_info)

    def stream(
        self,
        prompt: str | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream:
        """Starts to generate; `async for` gives the events as they come. Leaving it cancels the call."""
        return AsyncStream(*self._start_stream(prompt, timeout_seconds, options))

    async def list_models(
        self, *, page_size: int | None = None, timeout_seconds: float | None = None
    ) -> AsyncIterator[Model]:
        """All models that the server knows, asked for page by page; `timeout_seconds` is for each page."""
        page_token = ""
        while True:
            page = await self._call(calls.list_models_page(page_size, page_token, timeout_seconds))
            for model in page.models:
                yield responses.model(model)
            page_token = page.next_page_token
            if not page_token:
                return

    async def health(self, service: str = "", *, timeout_seconds: float | None = None) -> HealthStatus:
        """The health of "" (the process), "mlx_grpc.v1.InferenceService" or "models/<id>".

        SERVICE_UNKNOWN for a name that the server does not know.
        """
        try:
            return await self._call(calls.health_check(service, timeout_seconds))
        except ModelNotFound:
            return HealthStatus.SERVICE_UNKNOWN

    def watch(self, service: str = "", *, timeout_seconds: float | None = None) -> AsyncWatch:
        """The health of a service, now and whenever it changes. Leaving it cancels the call."""
        return AsyncWatch(*self._start_watch(service, timeout_seconds))

    async def close(self) -> None:
        """Closes the channel and cancels what still runs on it. May be called twice."""
        self._closed = True
        channel, self._channel, self._open_stubs = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _stubs(self) -> Stubs:
        if self._closed:
            raise MlxGrpcError("the client is closed")
        if self._open_stubs is None:
            self._channel = self._settings.open_aio()
            self._open_stubs = Stubs(self._channel)
        return self._open_stubs

    async def _call(self, unary: calls.Unary[Result]) -> Result:
        method = getattr(getattr(self._stubs, unary.service), unary.method)
        try:
            answer = await self._start(method, unary.request, unary.timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return unary.decode(answer)
