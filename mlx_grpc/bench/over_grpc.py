"""The driver for servers with our protos."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from mlx_grpc.bench.record import Ask, Record
from mlx_grpc.client import AsyncClient
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Completed, Delta, Event


class GrpcDriver:
    """Calls StreamGenerate. A refusal is a failure here, so nothing is tried again.

    `new_connections`: each request over a connection of its own, instead of all over one.
    """

    def __init__(
        self,
        target: str,
        *,
        model: str | None = None,
        token: str | None = None,
        tls: bool = False,
        timeout_seconds: float | None = None,
        new_connections: bool = False,
    ) -> None:
        self._target = target
        self._model = model
        self._new_connections = new_connections
        self._settings: dict[str, Any] = {
            "token": token,
            "tls": tls,
            "timeout_seconds": timeout_seconds,
            "retry": False,
            "options": {"grpc.use_local_subchannel_pool": 1},  # or channels to one address share a connection
        }
        self._client = AsyncClient(target, **self._settings)

    async def ask(self, ask: Ask, record: Record) -> None:
        """As `Driver.ask`."""
        try:
            async with self._a_client() as client, client.stream(**self._options(ask)) as stream:
                async for event in stream:
                    _note(event, record)
        except MlxGrpcError as error:
            code = error.metadata.get("grpc_code", error.code)
            record.failure = f"{code} {error.reason}".strip()
        finally:
            record.ended_seconds = time.perf_counter()

    @contextlib.asynccontextmanager
    async def _a_client(self) -> AsyncIterator[AsyncClient]:
        if not self._new_connections:
            yield self._client
            return
        async with AsyncClient(self._target, **self._settings) as client:
            yield client

    def _options(self, ask: Ask) -> dict[str, Any]:
        options: dict[str, Any] = {
            "prompt": None if ask.messages else ask.prompt,
            "messages": list(ask.messages) or None,
            "model": self._model,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "seed": ask.seed,
            "ignore_eos": True,  # so that the output has the length that was asked for
        }
        return {name: value for name, value in options.items() if value is not None}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()


def _note(event: Event, record: Record) -> None:
    match event:
        case Delta():
            record.deliver(event.text)
        case Completed():
            record.prompt_tokens = event.usage.prompt_tokens
            record.cached_tokens = event.usage.cached_prompt_tokens
            record.completion_tokens = event.usage.completion_tokens
