"""From what a client sends to the model's tokens, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat, Input
from mlx_grpc.service.intake.chat import render_chat
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.validate import check_characters

INLINE_CHARACTERS = 4096
"""Up to here tokenizing takes less than the trip to a thread and back would cost the others."""

Result = TypeVar("Result")


async def encode_prompt(source: Input, tokenizer: Tokenizer, context_length: int, vocab_size: int) -> list[int]:
    """A prompt's token ids, for a model with room for so many tokens and an embedding of so many ids.

    Raises as `encode` does, PromptTooLong for a text far past the context, InvalidField for an input without tokens or
    with one that the model cannot take.
    """
    text, special = source, True
    if isinstance(text, Chat):
        text, special = await rendered(text, tokenizer), False
    if isinstance(text, str):
        check_characters(text, context_length)
    ids = await encode(text, tokenizer, special)
    if not ids:
        raise InvalidField("the input has no tokens", field="input")
    _check_embedded(ids, source, tokenizer, vocab_size)
    return ids


def _check_embedded(ids: Sequence[int], source: Input, tokenizer: Tokenizer, vocab_size: int) -> None:
    """A tokenizer may have tokens, added later, that the model was never given an embedding for."""
    if max(ids) < vocab_size:
        return
    token_id = next(one for one in ids if one >= vocab_size)
    piece = tokenizer.token_bytes(token_id).decode(errors="replace")
    raise InvalidField(
        f"the text has the token {piece!r} ({token_id}), which this model cannot take: its ids go from 0 to "
        f"{vocab_size - 1}",
        field=_field_of(piece, source),
    )


def _field_of(piece: str, source: Input) -> str:
    """Where the text of a token is: a message, or the chat for what the template wrote."""
    if not isinstance(source, Chat):
        return "prompt"
    holding = (position for position, message in enumerate(source.messages) if piece in message.content)
    position = next(holding, None)
    return "chat" if position is None else f"chat.messages[{position}].content"


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
