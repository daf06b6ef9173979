"""What the servicers need to know of a call, in the project's terms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from grpc.aio import ServicerContext

from mlx_grpc.auth import clients
from mlx_grpc.auth.tokens import KnownToken
from mlx_grpc.service.intake.resolved import ResolvedRequest

log = logging.getLogger(__name__)

Context = ServicerContext[Any, Any]

_token: ContextVar[KnownToken | None] = ContextVar("mlx_grpc_token", default=None)


def note_token(token: KnownToken | None) -> None:
    """The token of the call that the current task serves."""
    _token.set(token)


def client_of(context: Context) -> str:
    """Who makes the call; see `auth.clients`."""
    return clients.client_name(_token.get(), clients.of_peer(context.peer()))


def deadline_seconds(context: Context) -> float | None:
    """The call's deadline on the loop's clock; None when it has none."""
    remaining_seconds: float | None = context.time_remaining()
    return None if remaining_seconds is None else asyncio.get_running_loop().time() + remaining_seconds


def authorization_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[str]:
    """The authorization headers of a call."""
    return [value for name, value in metadata or () if name == "authorization" and isinstance(value, str)]


def name_call(context: Context, request: ResolvedRequest) -> None:
    """Put the call's ids into the trailing metadata and the log."""
    context.set_trailing_metadata(
        (("x-generation-id", request.generation_id), ("x-request-id", request.request_id or request.generation_id))
    )
    log.info(
        "%s accepted: model %s, %d prompt tokens, at most %d new ones%s",
        request.generation_id, request.model, len(request.prompt), request.max_tokens,
        f", request {request.request_id}" if request.request_id else "",
    )  # fmt: skip
