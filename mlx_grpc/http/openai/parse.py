"""Bytes to a checked body, or one error that names the field at fault in OpenAI's own names. Pure.

Everything is bounded before it is walked: a body of a million unknown fields costs one look at the first.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from mlx_grpc.http.openai.bodies import (
    MAX_ENTRIES,
    MAX_MESSAGES,
    MAX_PARTS,
    NEUTRAL_CHAT,
    NEUTRAL_COMPLETION,
    NEUTRAL_MESSAGE,
    NEUTRAL_STREAM,
    Body,
    ChatBody,
    ChatMessage,
    CompletionBody,
    Neutral,
    StreamOptions,
    TextPart,
)
from mlx_grpc.http.openai.errors import ApiError

AnyBody = TypeVar("AnyBody", bound=Body)


def parse_chat(raw: bytes | bytearray) -> ChatBody:
    """The body of a chat completion. Raises ApiError 400."""
    data = _object(raw)
    _refuse_others(data, ChatBody, NEUTRAL_CHAT, "")
    refuse_in_messages(data.get("messages"), "messages")
    return _checked(ChatBody, data)


def parse_completion(raw: bytes | bytearray) -> CompletionBody:
    """The body of a plain completion. Raises ApiError 400."""
    data = _object(raw)
    _refuse_others(data, CompletionBody, NEUTRAL_COMPLETION, "")
    return _checked(CompletionBody, data)


def parse_json(raw: bytes | bytearray | str) -> Any:
    """Any JSON value. Raises ApiError 400 for what is none, is nested too deep, or has NaN in it."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"this is no valid JSON: {error}", code="invalid_json") from None


def checked(kind: type[AnyBody], data: dict[str, Any], path: str = "") -> AnyBody:
    """The body made of known fields; `path` stands before their names. Raises ApiError 400 for the first at fault."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        # A field that may be of several types has an error for each of them: the one that got furthest is meant.
        first = [one for one in found[:8] if one["loc"][:1] == found[0]["loc"][:1]]
        param = max((_path(data, one) for one in first), key=len)
        meant = [one for one in first if _path(data, one) == param]
        reasons = dict.fromkeys(one["msg"] for one in meant)
        code = "missing_required_parameter" if meant[0]["type"] == "missing" else "invalid_type"
        name = f"{path}.{param}".strip(".")
        raise ApiError(400, f"{name}: {', or '.join(reasons)}", param=name, code=code) from None


def _checked(kind: type[AnyBody], data: dict[str, Any]) -> AnyBody:
    options = data.get("stream_options")
    if isinstance(options, dict):
        _refuse_others(options, StreamOptions, NEUTRAL_STREAM, "stream_options")
    for name in ("logit_bias", "metadata", "chat_template_kwargs"):
        if isinstance(data.get(name), dict) and len(data[name]) > MAX_ENTRIES:
            raise ApiError(400, f"{name} has more than {MAX_ENTRIES} entries", param=name)
    return checked(kind, data)


def _object(raw: bytes | bytearray) -> dict[str, Any]:
    data = parse_json(raw)
    if not isinstance(data, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_type")
    return data


def refuse_in_messages(messages: Any, path: str) -> None:
    """Refuse what messages must not have, and take out what asks for nothing; their types are checked later."""
    parts = 0
    for index, message in enumerate(messages[:MAX_MESSAGES] if isinstance(messages, list) else ()):
        here = f"{path}[{index}]"
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        parts += len(content) if isinstance(content, list) else 0
        if parts > MAX_PARTS:
            raise ApiError(400, f"the messages have more than {MAX_PARTS} parts", param=f"{here}.content")
        _refuse_others(message, ChatMessage, NEUTRAL_MESSAGE, here)
        for position, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict):
                _refuse_in_part(part, f"{here}.content[{position}]")


def _refuse_in_part(part: dict[str, Any], path: str) -> None:
    kind = part.get("type")
    if isinstance(kind, str) and kind != "text":
        text = f"{path}: parts are of type text here, not {kind[:32]!r}"
        raise ApiError(400, text, param=path, code="unsupported_parameter")
    _refuse_others(part, TextPart, {}, path)


def _refuse_others(data: dict[str, Any], kind: type[Body], neutral: Neutral, path: str) -> None:
    """Take the neutral fields out of `data`, and refuse all that the kind does not have."""
    for name in list(islice((name for name in data if name not in kind.model_fields), len(neutral) + 1)):
        value, shown = data.pop(name), f"{path}.{name}".strip(".")
        if name not in neutral:
            raise ApiError(400, f"there is no parameter {shown[:64]!r}", param=shown, code="unknown_parameter")
        if value is not None and not any(_same(value, allowed) for allowed in neutral[name]):
            raise ApiError(400, _unsupported(shown, neutral[name]), param=shown, code="unsupported_parameter")


def _same(value: Any, allowed: Any) -> bool:
    """Equal, and of one type: to Python, true is 1."""
    return type(value) is type(allowed) and value == allowed


def _unsupported(name: str, allowed: Collection[Any]) -> str:
    if not allowed:
        return f"{name} is not supported by this server"
    shown = " or ".join(to_json(value).decode() for value in allowed)
    return f"{name} is not supported by this server, but for {shown}, which changes nothing"


def _path(data: Any, error: ErrorDetails) -> str:
    """Where the error is, without the names that pydantic gives to the alternatives of a type."""
    path, location = "", error["loc"]
    for position, part in enumerate(location):
        missing = error["type"] == "missing" and position == len(location) - 1
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            path, data = f"{path}[{part}]", data[part]
        elif isinstance(data, dict) and (part in data or missing):
            path, data = f"{path}.{part}".strip("."), data.get(part)
    return path
