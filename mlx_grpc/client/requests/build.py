"""Arguments of the client's methods -> protobuf requests. Pure; InvalidField names what cannot be sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_grpc.client.requests.chats import chat_message
from mlx_grpc.client.requests.fields import assign
from mlx_grpc.client.requests.options import MessageLike
from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat, Priority
from mlx_grpc.v1 import generation_pb2, model_service_pb2, tokenizer_service_pb2


def generate_request(
    prompt: str | None = None,
    *,
    messages: Sequence[MessageLike] | None = None,
    chat: Chat | None = None,
    token_ids: Sequence[int] | None = None,
    template_args: Mapping[str, Any] | None = None,
    continue_final_message: bool | None = None,
    model: str | None = None,
    request_id: str | None = None,
    priority: Priority | str | None = None,
    stop_strings: Sequence[str] | str | None = None,
    max_duration_seconds: float | None = None,
    output_token_ids: bool | None = None,
    cache_bypass: bool | None = None,
    cache_salt: str | None = None,
    **settings: Any,
) -> generation_pb2.GenerateRequest:
    """A GenerateRequest from the arguments that `GenerateOptions` describes; None is not sent."""
    request = generation_pb2.GenerateRequest()
    _one_of(prompt=prompt, messages=messages, chat=chat, token_ids=token_ids)
    assign(request, "", {"model": model, "request_id": request_id, "prompt": prompt})
    if priority is not None:
        request.priority = _priority(priority)
    if token_ids is not None:
        assign(request.token_ids, "token_ids", {"ids": token_ids})
        request.token_ids.SetInParent()
    the_chat = chat_message(messages, chat, template_args, continue_final_message)
    if the_chat is not None:
        request.chat.CopyFrom(the_chat)
    settings["bypass"], settings["salt"] = cache_bypass, cache_salt
    settings["token_ids"] = output_token_ids
    settings["stop_strings"] = (stop_strings,) if isinstance(stop_strings, str) else stop_strings
    settings["max_duration"] = max_duration_seconds
    _assign_settings(request, settings)
    return request


def _assign_settings(request: generation_pb2.GenerateRequest, settings: dict[str, Any]) -> None:
    """Each setting into the one of the groups that has a field of its name."""
    for path in ("sampling", "stop", "output", "cache"):
        group = getattr(request, path)
        names = [name for name in settings if name in group.DESCRIPTOR.fields_by_name]
        assign(group, path, {name: settings.pop(name) for name in names})
    if settings:
        raise TypeError(f"unexpected keyword argument {next(iter(settings))!r}")


def _one_of(**inputs: object) -> None:
    """Two inputs would be one dropped in silence: refused here, since a protobuf oneof cannot tell."""
    given = [name for name, value in inputs.items() if value is not None]
    if len(given) != 1:
        raise InvalidField(
            f"give exactly one of {', '.join(inputs)}, not {' and '.join(given) or 'none'}", field="input"
        )


def _priority(priority: Priority | str) -> Any:
    name = priority.name if isinstance(priority, Priority) else str(priority).upper()
    if name not in Priority.__members__:
        raise InvalidField(f"priority: {priority!r} is none of high, normal, low", field="priority")
    return generation_pb2.Priority.Value(f"PRIORITY_{name}")


def tokenize_request(
    text: str | None,
    messages: Sequence[MessageLike] | None,
    chat: Chat | None,
    model: str | None,
    add_special_tokens: bool | None,
) -> tokenizer_service_pb2.TokenizeRequest:
    """A TokenizeRequest of a text or a conversation."""
    request = tokenizer_service_pb2.TokenizeRequest()
    _fill(request, text, messages, chat, model)
    assign(request, "", {"add_special_tokens": add_special_tokens})
    return request


def count_tokens_request(
    text: str | None, messages: Sequence[MessageLike] | None, chat: Chat | None, model: str | None
) -> tokenizer_service_pb2.CountTokensRequest:
    """A CountTokensRequest of a text or a conversation."""
    request = tokenizer_service_pb2.CountTokensRequest()
    _fill(request, text, messages, chat, model)
    return request


def _fill(
    request: Any,
    text: str | None,
    messages: Sequence[MessageLike] | None,
    chat: Chat | None,
    model: str | None,
) -> None:
    _one_of(text=text, messages=messages, chat=chat)
    assign(request, "", {"model": model, "text": text})
    the_chat = chat_message(messages, chat)
    if the_chat is not None:
        request.chat.CopyFrom(the_chat)


def detokenize_request(token_ids: Sequence[int], model: str | None) -> tokenizer_service_pb2.DetokenizeRequest:
    """A DetokenizeRequest."""
    request = tokenizer_service_pb2.DetokenizeRequest()
    assign(request, "", {"model": model, "token_ids": token_ids})
    return request


def render_chat_request(
    messages: Chat | Sequence[MessageLike], model: str | None
) -> tokenizer_service_pb2.RenderChatRequest:
    """A RenderChatRequest of a conversation in either form."""
    request = tokenizer_service_pb2.RenderChatRequest()
    assign(request, "", {"model": model})
    chat = chat_message(None, messages) if isinstance(messages, Chat) else chat_message(messages)
    if chat is not None:
        request.chat.CopyFrom(chat)
    return request


def list_models_request(page_size: int | None, page_token: str) -> model_service_pb2.ListModelsRequest:
    """A ListModelsRequest; an empty token asks for the first page."""
    request = model_service_pb2.ListModelsRequest()
    assign(request, "", {"page_size": page_size, "page_token": page_token or None})
    return request
