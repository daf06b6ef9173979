"""Conversations, as dicts or as our dataclasses -> protobuf. Pure; no part of a turn is dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_grpc.client.requests.fields import assign
from mlx_grpc.client.requests.options import MessageLike
from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat, Message
from mlx_grpc.v1 import chat_pb2


def chat_message(
    messages: Sequence[MessageLike] | None,
    chat: Chat | None = None,
    template_args: Mapping[str, Any] | None = None,
    continue_final_message: bool | None = None,
) -> chat_pb2.Chat | None:
    """The conversation as protobuf; None when neither `messages` nor `chat` is given.

    The template's settings belong to `messages`; a `Chat` has its own, and a prompt none.
    """
    if messages is None and (template_args is not None or continue_final_message is not None):
        field = "template_args" if template_args is not None else "continue_final_message"
        raise InvalidField(f"{field} goes with messages alone", field=field)
    if chat is not None:
        settings = {"template_args_json": chat.template_args_json or None}
        return _chat(chat.messages, settings | {"continue_final_message": chat.continue_final_message or None})
    if messages is None:
        return None
    return _chat(
        messages,
        {"template_args_json": _json(template_args), "continue_final_message": continue_final_message},
    )


def _chat(messages: Sequence[MessageLike], settings: Mapping[str, Any]) -> chat_pb2.Chat:
    result = chat_pb2.Chat()
    assign(result, "chat", settings)
    for position, message in enumerate(messages):
        path = f"messages[{position}]"
        role, parts = _turn(message, path)
        turn = result.messages.add(role=_role(role, path))
        for part in parts:
            assign(turn.content.add(), f"{path}.content", {"text": part})
    return result


def _turn(message: MessageLike, path: str) -> tuple[Any, list[Any]]:
    """A turn's role and its texts."""
    if isinstance(message, Message):
        return message.role, [message.content]
    if not isinstance(message, Mapping):
        raise InvalidField(f'{path}: expected {{"role": …, "content": …}}, not {message!r}', field=path)
    for key in message:
        if key not in ("role", "content"):
            raise InvalidField(f"{path}.{key}: not supported", field=f"{path}.{key}")
    content = message.get("content")
    if content is None:
        raise InvalidField(f"{path}.content: missing", field=f"{path}.content")
    if not isinstance(content, list):
        return message.get("role"), [content]
    return message.get("role"), [_part(part, f"{path}.content") for part in content]


def _part(part: Any, path: str) -> Any:
    """The text of a content part: {"type": "text", "text": …} or the text itself."""
    if isinstance(part, Mapping):
        if part.get("type", "text") != "text":
            raise InvalidField(f"{path}: a part of type {part['type']!r} is not supported", field=path)
        return part.get("text")
    return part


def _role(role: Any, path: str) -> Any:
    name = f"ROLE_{str(role).upper()}"
    if name == "ROLE_UNSPECIFIED" or name not in chat_pb2.Role.keys():  # noqa: SIM118 - no container
        raise InvalidField(
            f"{path}.role: {role!r} is none of system, developer, user, assistant, tool", field=f"{path}.role"
        )
    return chat_pb2.Role.Value(name)


def _json(template_args: Mapping[str, Any] | None) -> str | None:
    try:
        return None if template_args is None else json.dumps(dict(template_args))
    except (TypeError, ValueError) as error:
        raise InvalidField(f"template_args: {error}", field="template_args") from None
