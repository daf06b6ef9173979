"""Events in OpenAI's words: chunks of a stream, and whole answers.

What is constant in a chunk is written once a call: a token costs one string encoded and three joined.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from mlx_grpc import __version__
from mlx_grpc.request import Completed, Delta, Finished, FinishReason, PlacedLogprob, TokenLogprob, TopLogprob

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
FINGERPRINT = f"mlx-grpc-{__version__}"
REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TIME_LIMIT: "length",
}
_MARK = "\x00"


class Answer(Protocol):
    """One call's answer in the making."""

    def start(self) -> bytes:
        """The chunk before all others, or nothing."""

    def delta(self, delta: Delta) -> bytes:
        """The chunk of new text."""

    def finished(self, finished: Finished) -> bytes:
        """The chunk that says why it ended."""

    def usage(self, completed: Completed) -> bytes:
        """The chunk of token counts."""

    def whole(self, deltas: Sequence[Delta], finished: Finished, completed: Completed) -> bytes:
        """The answer to a call that does not stream."""


class ChatAnswer:
    """/v1/chat/completions."""

    def __init__(self, generation_id: str, model: str, logprobs: bool, include_usage: bool) -> None:
        self._head = _head("chatcmpl", "chat.completion", generation_id, model)
        self._logprobs = logprobs
        self._chunk = {**self._head, "object": "chat.completion.chunk"}
        if include_usage:
            self._chunk["usage"] = None
        text_chunk = _event(self._chunk | {"choices": [_choice("delta", {"content": _MARK}, None, None)]})
        self._before, _, self._after = text_chunk.rpartition(encode(_MARK))

    def start(self) -> bytes:
        return self._one({"role": "assistant", "content": ""})

    def delta(self, delta: Delta) -> bytes:
        if self._logprobs:
            return self._one({"content": delta.text}, chat_logprobs(delta.logprobs))
        return self._before + _text(delta.text) + self._after

    def finished(self, finished: Finished) -> bytes:
        return self._one({}, None, REASONS[finished.reason])

    def usage(self, completed: Completed) -> bytes:
        return _event(self._chunk | {"choices": [], "usage": usage(completed)})

    def whole(self, deltas: Sequence[Delta], finished: Finished, completed: Completed) -> bytes:
        message = {"role": "assistant", "content": "".join(delta.text for delta in deltas), "refusal": None}
        found = chat_logprobs(_all_logprobs(deltas)) if self._logprobs else None
        choice = _choice("message", message, found, REASONS[finished.reason])
        return encode(self._head | {"choices": [choice], "usage": usage(completed)})

    def _one(self, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None) -> bytes:
        return _event(self._chunk | {"choices": [_choice("delta", delta, logprobs, reason)]})


class CompletionAnswer:
    """/v1/completions."""

    def __init__(self, generation_id: str, model: str, logprobs: bool, include_usage: bool) -> None:
        self._head = _head("cmpl", "text_completion", generation_id, model)
        self._logprobs = logprobs
        self._chunk = {**self._head, "usage": None} if include_usage else self._head
        text_chunk = _event(self._chunk | {"choices": [_choice("text", _MARK, None, None)]})
        self._before, _, self._after = text_chunk.rpartition(encode(_MARK))

    def start(self) -> bytes:
        return b""

    def delta(self, delta: Delta) -> bytes:
        if self._logprobs:
            choice = _choice("text", delta.text, completion_logprobs(delta.logprobs), None)
            return _event(self._chunk | {"choices": [choice]})
        return self._before + _text(delta.text) + self._after

    def finished(self, finished: Finished) -> bytes:
        return _event(self._chunk | {"choices": [_choice("text", "", None, REASONS[finished.reason])]})

    def usage(self, completed: Completed) -> bytes:
        return _event(self._chunk | {"choices": [], "usage": usage(completed)})

    def whole(self, deltas: Sequence[Delta], finished: Finished, completed: Completed) -> bytes:
        found = completion_logprobs(_all_logprobs(deltas)) if self._logprobs else None
        choice = _choice("text", "".join(delta.text for delta in deltas), found, REASONS[finished.reason])
        return encode(self._head | {"choices": [choice], "usage": usage(completed)})


def usage(completed: Completed) -> dict[str, Any]:
    """Token counts."""
    found = completed.usage
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "total_tokens": found.prompt_tokens + found.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": found.cached_prompt_tokens},
    }


def chat_logprobs(found: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The form of chat completions, with each token's bytes."""
    return {
        "content": [
            {**_named(one.token, one.logprob), "top_logprobs": [_named(top.token, top.logprob) for top in one.top]}
            for one in found
        ],
        "refusal": None,
    }


def completion_logprobs(found: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The older form, of plain completions, where only their names tell alternatives apart. `text_offset` counts
    characters from the start of the output."""
    names = [_distinct_names(one) for one in found]
    return {
        "tokens": [its[one.token_id] for one, its in zip(found, names, strict=True)],
        "token_logprobs": [one.logprob for one in found],
        "top_logprobs": [
            {its[top.token_id]: top.logprob for top in one.top} for one, its in zip(found, names, strict=True)
        ],
        "text_offset": [one.text_offset if isinstance(one, PlacedLogprob) else None for one in found],
    }


def _distinct_names(found: TokenLogprob) -> dict[int, str]:
    """By id, a name of its own for each alternative, the likeliest first, and for the token: its text, else its bytes,
    else its id."""
    names: dict[int, str] = {}
    tokens: tuple[TopLogprob | TokenLogprob, ...] = (*found.top, found)
    for one in tokens:
        if one.token_id not in names:
            taken = set(names.values())
            choices = (_text_or_bytes(one.token), _bytes_name(one.token))
            names[one.token_id] = next((name for name in choices if name not in taken), f"token_id:{one.token_id}")
    return names


def _text_or_bytes(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return _bytes_name(token)


def _bytes_name(token: bytes) -> str:
    """As OpenAI writes them: `bytes:\\xe2\\x80`."""
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def _named(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _token(token), "logprob": logprob, "bytes": list(token)}


def _token(token: bytes) -> str:
    """A token's text; half a character becomes U+FFFD."""
    return token.decode(errors="replace")


def _all_logprobs(deltas: Sequence[Delta]) -> list[TokenLogprob]:
    return [one for delta in deltas for one in delta.logprobs]


def _head(prefix: str, kind: str, generation_id: str, model: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{generation_id.removeprefix('gen-')}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def _choice(name: str, content: Any, logprobs: Any, reason: str | None) -> dict[str, Any]:
    return {"index": 0, name: content, "logprobs": logprobs, "finish_reason": reason}


def _event(facts: dict[str, Any]) -> bytes:
    return b"data: " + _one_line(encode(facts)) + b"\n\n"


def _text(text: str) -> bytes:
    return encode(text) if text.isascii() else _one_line(encode(text))


def _one_line(data: bytes) -> bytes:
    """Some readers of event streams end a line at Unicode's own line ends, so JSON's escapes stand for them."""
    if data.isascii():
        return data
    return (
        data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029").replace(b"\xc2\x85", b"\\u0085")
    )
