"""From what a client sends to the model's tokens, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat, Input
from mlx_grpc.service.chat import encode_chat
from mlx_grpc.service.tokenizer import Tokenizer

INLINE_CHARACTERS = 4096
"""Up to here tokenizing takes less than the trip to a thread and back would cost the others."""

Result = TypeVar("Result")


async def encode(source: Input, tokenizer: Tokenizer, add_special_tokens: bool = True) -> list[int]:
    """The prompt's token ids. A chat is rendered by the model's template, which brings its own special tokens.

    Raises InvalidField or UnsupportedField, and InvalidField for an input that has no tokens at all.
    """
    if isinstance(source, tuple):
        return list(source)
    if isinstance(source, Chat):
        chat = source
        ids = await asyncio.to_thread(lambda: encode_chat(chat, tokenizer))
    else:
        text = source
        ids = await off_loop(len(text), lambda: tokenizer.encode(text, add_special_tokens))
    return ids


def require_tokens(ids: list[int], field: str) -> list[int]:
    """A prompt needs a token to go on from. Raises InvalidField."""
    if not ids:
        raise InvalidField("the input has no tokens", field=field)
    return ids


async def off_loop(characters: int, work: Callable[[], Result]) -> Result:
    """Do small work here and large work in a thread."""
    return work() if characters <= INLINE_CHARACTERS else await asyncio.to_thread(work)
