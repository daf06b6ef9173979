"""Texts and tokens for those who only ask about them: what TokenizerService answers.

Nothing is generated, so no context bounds what is asked. The bounds here keep a thread for about a second at most, and
an answer to some megabytes, which the event loop writes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat
from mlx_grpc.service.intake.chat import render_chat
from mlx_grpc.service.intake.encode import in_turn
from mlx_grpc.service.intake.templates.chat_template import nobody_left
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.turns import HasLeft, Result, Turns
from mlx_grpc.service.intake.validate import characters_of, check_token_ids, check_unicode

LEAST_CHARACTERS = 512 * 1024
CHARACTERS_PER_TOKEN = 8
MAX_TOKENS = 512 * 1024
INLINE_TOKENS = 4096
_PART_TOKENS = 16 * 1024
"""Copied at a time: other threads have the interpreter between."""
MAX_TEXT_BYTES = 16 * 1024 * 1024


def max_characters(context_length: int) -> int:
    """Of a text, a chat or a rendered chat: more than fit the model's context."""
    return max(LEAST_CHARACTERS, CHARACTERS_PER_TOKEN * context_length)


async def look_up(
    source: str | Chat,
    tokenizer: Tokenizer,
    context_length: int,
    turns: Turns,
    answer: Callable[[str, list[int]], Result],
    *,
    add_special_tokens: bool = True,
    caller: str = "",
) -> Result:
    """What `answer` makes of the text, or the rendered chat, and its token ids; it runs in the same thread. A chat's
    template brings its own special tokens.

    Raises InvalidField for more than may be asked, InvalidField or UnsupportedField for a chat that cannot be rendered,
    and QueueFull.
    """
    field = "chat.messages" if isinstance(source, Chat) else "text"
    most = max_characters(context_length)
    _check(characters_of(source), most, "characters", field)

    def work(has_left: HasLeft) -> Result:
        if isinstance(source, Chat):
            text, special = render_chat(source, tokenizer, has_left), False
            _check(len(text), most, "characters", "chat")
        else:
            text, special = source, add_special_tokens
            check_unicode(text, field)
        ids = tokenizer.encode(text, special)
        _check(len(ids), MAX_TOKENS, "tokens", field)
        return answer(text, ids)

    return await in_turn(source, work, turns, caller)


async def text_of(ids: Sequence[int], vocab_size: int, tokenizer: Tokenizer, turns: Turns, caller: str = "") -> str:
    """The text of these ids. Raises InvalidField for too many, for one that is not in the vocabulary, and for those
    that stand for too long a text; QueueFull."""
    _check(len(ids), MAX_TOKENS, "tokens", "token_ids")

    def work(_: HasLeft) -> str:
        known = [one for start in range(0, len(ids), _PART_TOKENS) for one in ids[start : start + _PART_TOKENS]]
        check_token_ids(known, vocab_size, "token_ids")
        _check(sum(len(tokenizer.token_bytes(one)) for one in known), MAX_TEXT_BYTES, "bytes of text", "token_ids")
        return tokenizer.decode(known)

    return await turns.run(work, len(ids), caller) if len(ids) > INLINE_TOKENS else work(nobody_left)


def _check(count: int, most: int, of_what: str, field: str) -> None:
    if count > most:
        raise InvalidField(f"{count} {of_what}, which may be at most {most}", field=field)
