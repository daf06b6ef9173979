"""From what a client sends to the model's tokens, without holding up the event loop.

All but short texts are rendered and tokenized in threads, in turns (`turns`). What is far past the context is refused
before that: by its characters, and where these may be tokens of a few long words alone, by tokenizing it in pieces
until they are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_grpc.errors import InvalidField, PromptTooLong
from mlx_grpc.request import Chat, Input
from mlx_grpc.service.intake.chat import render_chat
from mlx_grpc.service.intake.templates.chat_template import nobody_left
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.turns import SHORT_CHARACTERS, HasLeft, Result, Turns
from mlx_grpc.service.intake.validate import characters_of, check_characters

INLINE_CHARACTERS = 4096
"""Up to here tokenizing takes less than the trip to a thread and back would cost the others."""
IDS_PER_CHARACTER = 16
"""Token ids are only looked at: so many take less time than the tokenizing of one character."""
SHORT_MESSAGES = 512
"""A chat of more is long: a template takes some 25 microseconds for each."""
FEW_CHARACTERS_PER_TOKEN = 2
"""A text with more may be much too long: it is tokenized piece by piece first. That costs as much again, which is
little beside the prefill of such a prompt."""
PIECE_CHARACTERS = 32 * 1024
SURELY_TOO_LONG = 1.25
"""Pieces may have some more tokens than the whole, where they are cut; not so many."""


async def encode_prompt(
    source: Input, tokenizer: Tokenizer, context_length: int, vocab_size: int, turns: Turns, caller: str = ""
) -> list[int]:
    """A prompt's token ids, for a model with room for so many tokens and an embedding of so many ids.

    Raises PromptTooLong for a text far past the context, InvalidField for an input without tokens or with one that the
    model cannot take, InvalidField or UnsupportedField for a chat that cannot be rendered, and QueueFull.
    """
    characters = characters_of(source)
    check_characters(characters, context_length)

    def work(has_left: HasLeft) -> list[int]:
        text, special = source, True
        if isinstance(text, Chat):
            text, special = render_chat(text, tokenizer, has_left), False
        if isinstance(text, str):
            check_characters(len(text), context_length)
            check_tokens(text, tokenizer, context_length, has_left)
            ids = tokenizer.encode(text, special)
        else:
            ids = list(text)
        if not ids:
            raise InvalidField("the input has no tokens", field="input")
        _check_embedded(ids, source, tokenizer, vocab_size)
        return ids

    return await in_turn(source, work, turns, caller)


def check_tokens(text: str, tokenizer: Tokenizer, context_length: int, has_left: HasLeft = nobody_left) -> None:
    """Refuse a text that is far past the context before time goes into all of it. Raises PromptTooLong."""
    if len(text) <= max(PIECE_CHARACTERS, FEW_CHARACTERS_PER_TOKEN * context_length):
        return
    tokens = 0
    for start in range(0, len(text), PIECE_CHARACTERS):
        tokens += len(tokenizer.encode(text[start : start + PIECE_CHARACTERS], False))
        if tokens > SURELY_TOO_LONG * context_length or has_left():
            raise PromptTooLong(
                f"the prompt has {len(text)} characters, and their first {start + PIECE_CHARACTERS} have more tokens "
                f"than the context of {context_length}",
                field="input",
                metadata={"prompt_characters": str(len(text)), "context_length": str(context_length)},
            )


async def in_turn(source: Input, work: Callable[[HasLeft], Result], turns: Turns, caller: str) -> Result:
    """Short texts and token ids here, all else in a thread: a template is a program, however short the chat is."""
    characters = characters_of(source)
    if isinstance(source, tuple):
        characters //= IDS_PER_CHARACTER
    if not isinstance(source, Chat) and characters <= INLINE_CHARACTERS:
        return work(nobody_left)
    if isinstance(source, Chat) and len(source.messages) > SHORT_MESSAGES:
        characters = max(characters, SHORT_CHARACTERS + 1)
    argued = isinstance(source, Chat) and source.template_args_json != ""
    return await turns.run(work, characters, caller, argued=argued)


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
