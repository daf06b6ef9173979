"""From what a client sends to the model's tokens, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat, Input
from mlx_grpc.service.intake.chat import render_chat
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.validate import check_characters

INLINE_CHARACTERS = 4096
"""Up to here tokenizing takes less than the trip to a thread and back would cost the others."""

Result = TypeVar("Result")


async def encode_prompt(source: Input, tokenizer: Tokenizer, context_length: int) -> list[int]:
    """A prompt's token ids, for a model with room for so many tokens.

    Raises as `encode` does, PromptTooLong for a text far past the context, InvalidField for an input without tokens.
    """
    if isinstance(source, Chat):
        source, special = await rendered(source, tokenizer), False
    else:
        special = True
    if isinstance(source, str):
        check_characters(source, context_length)
    ids = await encode(source, tokenizer, special)
    if not ids:
        raise InvalidField("the input has no tokens", field="input")
    return ids


async def encode(source: Input, tokenizer: Tokenizer, add_special_tokens: bool = True) -> list[int]:
    """The input's token ids. A chat is rendered by the model's template, which brings its own special tokens.

    Raises InvalidField or UnsupportedField for a chat that cannot be rendered.
    """
    if isinstance(source, tuple):
        return list(source)
    if isinstance(source, Chat):
        source, add_special_tokens = await rendered(source, tokenizer), False
    text = source
    return await off_loop(len(text), lambda: tokenizer.encode(text, add_special_tokens))


async def rendered(chat: Chat, tokenizer: Tokenizer) -> str:
    """The chat as its template writes it. Templates are programs: they run in a thread, however short the chat is."""
    return await asyncio.to_thread(lambda: render_chat(chat, tokenizer))


async def off_loop(characters: int, work: Callable[[], Result]) -> Result:
    """Do small work here and large work in a thread."""
    return work() if characters <= INLINE_CHARACTERS else await asyncio.to_thread(work)
