"""Large requests: what is refused before it is copied, and what is converted in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from mlx_grpc.request import GenerationRequest, Stop
from mlx_grpc.rpc import convert
from mlx_grpc.service.intake.defaults import resolve_max_tokens
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import generation_pb2

INLINE_BYTES = 64 * 1024
"""So much is converted in a few milliseconds, whatever it holds."""
INLINE_TOKENS = 16 * 1024
"""So many token ids are checked or copied in a few milliseconds."""

Result = TypeVar("Result")


async def generation_request(proto: generation_pb2.GenerateRequest, service: Service) -> GenerationRequest:
    """The request as it was sent, without holding up the event loop.

    Raises as `convert.generation_request` does. Many token ids are not copied where the model has no room for them:
    PromptTooLong, and what a model says that does not take calls now.
    """
    tokens = len(proto.token_ids.ids)
    if tokens > INLINE_TOKENS:
        host = service.catalog.get(proto.model)
        host.life.check_ready()
        resolve_max_tokens(Stop(), tokens, host.context_length, 1)
    return await off_loop(proto, lambda: convert.generation_request(proto))


async def off_loop(proto: Message, work: Callable[[], Result]) -> Result:
    """Do the work on a small message here, and on a large one in a thread."""
    return work() if proto.ByteSize() <= INLINE_BYTES else await asyncio.to_thread(work)
