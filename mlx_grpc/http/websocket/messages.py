"""What is said on /v1/ws, in both directions. Pure.

In: `text_input`, `config`, `cancel`. Out: `response_start`, `token`, `response_complete`, `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from pydantic import Field

from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.http.openai.answers import usage
from mlx_grpc.http.openai.bodies import MAX_MESSAGES, Body, ChatMessage
from mlx_grpc.http.openai.errors import ApiError, api_error
from mlx_grpc.http.openai.parse import checked, parse_json, refuse_in_messages
from mlx_grpc.http.openai.requests import translated
from mlx_grpc.request import Chat, Completed, GenerationRequest, Message, Priority, Sampling, Stop

encode = msgspec.json.Encoder().encode
CANCELLED = "cancelled"


class TextInput(Body):
    """A question. `context` goes before it: a text as a system message, or the turns so far."""

    content: str = Field(min_length=1)
    context: str | Annotated[list[ChatMessage], Field(fail_fast=True, max_length=MAX_MESSAGES - 1)] | None = None

    def chat(self) -> Chat:
        """The conversation that asks it."""
        before = [Message("system", self.context)] if isinstance(self.context, str) and self.context else []
        if isinstance(self.context, list):
            before = [Message(turn.role, turn.text()) for turn in self.context]
        return Chat((*before, Message("user", self.content)))


class Parameters(Body):
    """What holds for the questions of a socket that come after it. A field that is null goes back to its default."""

    temperature: float | None = None
    maxOutputTokens: int | None = None  # noqa: N815
    topP: float | None = None  # noqa: N815
    topK: int | None = None  # noqa: N815
    presencePenalty: float | None = None  # noqa: N815
    frequencyPenalty: float | None = None  # noqa: N815

    def request(self, chat: Chat, priority: Priority) -> GenerationRequest:
        """A question with these parameters."""
        sampling = Sampling(
            temperature=self.temperature,
            top_p=self.topP,
            top_k=self.topK,
            presence_penalty=self.presencePenalty,
            frequency_penalty=self.frequencyPenalty,
        )
        return GenerationRequest(chat, sampling=sampling, stop=Stop(max_tokens=self.maxOutputTokens), priority=priority)


class Cancel(Body):
    """End the answer that is being given."""


_NAMES = {
    "sampling.top_p": "topP",
    "sampling.top_k": "topK",
    "sampling.presence_penalty": "presencePenalty",
    "sampling.frequency_penalty": "frequencyPenalty",
    "stop.max_tokens": "maxOutputTokens",
    "chat.messages": "context",
    "chat": "content",
    "input": "content",
}
_KINDS: Mapping[str, type[Body]] = {"text_input": TextInput, "config": Parameters, "cancel": Cancel}


def parse(text: str) -> Body:
    """A message of the client's: TextInput, Parameters or Cancel. Raises ApiError for all else."""
    data = parse_json(text)
    if not isinstance(data, dict):
        raise ApiError(400, "a message is a JSON object with a type", code="invalid_type")
    kind = data.pop("type", None)
    if kind == "image_input":
        raise ApiError(400, "image_input is not supported by this server", param="type", code="unsupported_parameter")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ApiError(400, f"type is one of {', '.join(_KINDS)}", param="type", code="invalid_value")
    model = _KINDS[kind]
    if unknown := next((name for name in data if name not in model.model_fields), None):
        raise ApiError(400, f"{kind} has no field {unknown[:64]!r}", param=unknown, code="unknown_parameter")
    refuse_in_messages(data.get("context"), "context")
    return checked(model, data)


def socket_error(error: MlxGrpcError, chat: Chat | None = None) -> ApiError:
    """A service's error, with the field in the socket's names. The last turn of the chat is `content`, those before it
    are `context`."""
    question = f"chat.messages[{len(chat.messages) - 1 if chat else 0}]"
    own = {f"{question}.role": "content", f"{question}.content": "content"} if chat else {}
    return api_error(error, translated(error.field, _NAMES | own))


def response_start(generation_id: str, model: str) -> str:
    """An answer begins."""
    return _json(type="response_start", generation_id=generation_id, model=model)


def token(content: str, unix_seconds: float) -> str:
    """New text: one token's, or that of several for a reader that is behind."""
    return _json(type="token", content=content, timestamp=unix_seconds)


def response_complete(text: str, inference_seconds: float, completed: Completed | None, finish_reason: str) -> str:
    """An answer has ended, or was cancelled: then there is no usage."""
    return _json(
        type="response_complete",
        full_text=text,
        inference_time=inference_seconds,
        usage=usage(completed) if completed else None,
        finish_reason=finish_reason,
    )


def error_message(error: ApiError, *, ends_answer: bool) -> str:
    """A message that was not understood; or, with `ends_answer`, an answer that failed."""
    facts: dict[str, Any] = {"message": error.message, "code": error.code, "param": error.param or None}
    facts["ends_answer"] = ends_answer
    if "retry-after-ms" in error.headers:
        facts["retry_after"] = int(error.headers["retry-after-ms"]) / 1000
    return _json(type="error", **facts)


def _json(**facts: Any) -> str:
    return encode(facts).decode()
