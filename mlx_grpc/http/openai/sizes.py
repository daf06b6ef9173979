"""How much memory a parsed request takes: Python has up to four bytes for each character of a text."""

from __future__ import annotations

from sys import getsizeof

from mlx_grpc.bounds.intake import Holding
from mlx_grpc.request import Chat, GenerationRequest

TOKEN_ID_BYTES = 40
"""A place in a tuple, and a number."""


def request_bytes(request: GenerationRequest) -> int:
    """Of its input; all else of a request is small."""
    match request.input:
        case str() as prompt:
            return getsizeof(prompt)
        case Chat() as chat:
            return sum(getsizeof(message.content) for message in chat.messages) + getsizeof(chat.template_args_json)
    return TOKEN_ID_BYTES * len(request.input or ())


def hold_parsed(holding: Holding | None, request: GenerationRequest) -> None:
    """Hold what was made of a body or message where that is more than its bytes were; one alone always has room.

    Raises IntakeFull.
    """
    if holding is not None:
        holding.grow(min(request_bytes(request), holding.most_bytes) - holding.bytes)
