"""A vector's calls through the Python client: proto JSON to its arguments, its results back to plain facts."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format

from mlx_grpc.client import AsyncClient, AsyncStream, Model, ModelState
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Completed, Delta, Finished, FinishReason, Started, TokenLogprob, Usage
from mlx_grpc.v1 import chat_pb2, generation_pb2, tokenizer_service_pb2
from tests.conformance.outcome import Failure, Outcome

Json = Mapping[str, Any]


def open_client(facts: Json, settings: Json) -> AsyncClient:
    """The client that a vector asks for; `facts` is the answer of `POST /server`."""
    options: dict[str, Any] = {name: settings[name] for name in ("token", "retry") if name in settings}
    if settings.get("tls"):
        options["root_certificates"] = facts["root_certificates"].encode()
    if settings.get("mutual_tls"):
        options["private_key"] = facts["private_key"].encode()
        options["certificate_chain"] = facts["certificate_chain"].encode()
    return AsyncClient(facts["grpc"], **options)


def open_stream(client: AsyncClient, step: Json) -> AsyncStream:
    """Starts a stream's call."""
    return client.stream(**generate_arguments(step), timeout_seconds=_deadline(step))


async def read_stream(stream: AsyncStream, step: Json, outcome: Outcome) -> None:
    """Read to the end, or as far as the step says."""
    deltas = 0
    delay = step.get("read_delay", {})
    try:
        async for event in stream:
            _add(outcome, event)
            deltas += isinstance(event, Delta)
            if isinstance(event, Delta) and delay and deltas % delay["every"] == 0:
                await asyncio.sleep(delay["ms"] / 1000)
            if deltas and deltas == step.get("cancel_after_deltas"):
                outcome.cancelled = True
                break
    except MlxGrpcError as error:
        outcome.error = failure(error)


async def call_once(client: AsyncClient, step: Json, outcome: Outcome) -> None:
    """Any method that answers once."""
    try:
        if step["call"] == "generate":
            answer = await client.generate(**generate_arguments(step), timeout_seconds=_deadline(step))
            outcome.text, outcome.token_ids = answer.text, list(answer.token_ids)
            outcome.logprobs, outcome.usage = [_logprob(one) for one in answer.logprobs], as_json(answer.usage)
            outcome.started = as_json(answer)
            _finish(outcome, answer.finish_reason, answer.stop_string, answer.stop_token_id)
        else:
            outcome.response = await _METHODS[step["call"]](client, step.get("request", {}))
    except MlxGrpcError as error:
        outcome.error = failure(error)


def generate_arguments(step: Json) -> dict[str, Any]:
    """A GenerateRequest's proto JSON as keyword arguments of `generate` and `stream`."""
    request = json_format.ParseDict(step.get("request", {}), generation_pb2.GenerateRequest())
    arguments: dict[str, Any] = {
        field.name: value for field, value in request.ListFields() if field.name in ("model", "request_id", "prompt")
    }
    if request.HasField("chat"):
        arguments |= {"messages": _messages(request.chat)}
    if request.HasField("token_ids"):
        arguments["token_ids"] = list(request.token_ids.ids)
    for group in (request.sampling, request.stop, request.output):
        for field, value in group.ListFields():
            name = "output_token_ids" if field.name == "token_ids" else field.name
            arguments[name] = list(value) if field.is_repeated else value
    return arguments


def failure(error: MlxGrpcError) -> Failure:
    """An error of the client as plain facts."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__)
    return Failure(
        kinds, error.metadata.get("grpc_code", error.code), error.reason, error.message, error.field, error.resource,
        error.retry_after_seconds, error.metadata,
    )  # fmt: skip


def as_json(value: Any) -> Any:
    """The client's dataclasses as the messages they came from would be in proto JSON."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case ModelState():
            return f"MODEL_STATE_{value.name}"
        case enum.Enum():
            return value.name
        case list() | tuple():
            return [as_json(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    found = {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {_camel(name): str(item) if name == "seed" else item for name, item in found.items()}


def _model_as_json(model: Model) -> Any:
    """As on the wire, where `batching` is an enum's name: the client has its word in lower case, "" until loaded."""
    return as_json(model) | {"batching": f"BATCHING_{model.batching.upper() or 'UNSPECIFIED'}"}


def _add(outcome: Outcome, event: object) -> None:
    outcome.add_event(type(event).__name__.lower())
    match event:
        case Started():
            outcome.started = as_json(event)
        case Delta():
            outcome.text += event.text
            outcome.token_ids += event.token_ids
            outcome.logprobs += map(_logprob, event.logprobs)
        case Finished():
            _finish(outcome, event.reason, event.stop_string, event.stop_token_id)
        case Completed(usage=Usage() as usage):
            outcome.usage = as_json(usage)


def _finish(outcome: Outcome, reason: FinishReason, stop_string: str, stop_token_id: int | None) -> None:
    outcome.finish_reason = f"FINISH_REASON_{reason.name}"
    outcome.stop_string, outcome.stop_token_id = stop_string, stop_token_id


def _logprob(one: TokenLogprob) -> Any:
    return as_json(one)


def _messages(chat: chat_pb2.Chat) -> list[dict[str, Any]]:
    return [
        {
            "role": chat_pb2.Role.Name(turn.role).removeprefix("ROLE_").lower(),
            "content": [{"type": "text", "text": part.text} for part in turn.content],
        }
        for turn in chat.messages
    ]


def _text_or_chat(request: Json) -> dict[str, Any]:
    parsed = json_format.ParseDict(dict(request), tokenizer_service_pb2.TokenizeRequest())
    return {"messages": _messages(parsed.chat)} if parsed.HasField("chat") else {"text": parsed.text}


def _deadline(step: Json) -> float | None:
    return step["deadline_ms"] / 1000 if "deadline_ms" in step else None


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


async def _tokenize(client: AsyncClient, request: Json) -> Any:
    return as_json(await client.tokenize(**_text_or_chat(request)))


async def _detokenize(client: AsyncClient, request: Json) -> Any:
    return {"text": await client.detokenize(request["tokenIds"])}


async def _count_tokens(client: AsyncClient, request: Json) -> Any:
    return as_json(await client.count_tokens(**_text_or_chat(request)))


async def _render_chat(client: AsyncClient, request: Json) -> Any:
    return as_json(await client.render_chat(**_text_or_chat(request)))


async def _list_models(client: AsyncClient, _: Json) -> Any:
    return {"models": [_model_as_json(model) async for model in client.list_models()]}


async def _get_model(client: AsyncClient, request: Json) -> Any:
    return {"model": _model_as_json(await client.get_model(request.get("model")))}


async def _load_model(client: AsyncClient, request: Json) -> Any:
    return {"model": _model_as_json(await client.load_model(request["model"]))}


async def _unload_model(client: AsyncClient, request: Json) -> Any:
    return {"model": _model_as_json(await client.unload_model(request["model"]))}


async def _server_info(client: AsyncClient, _: Json) -> Any:
    return as_json(await client.server_info())


async def _health(client: AsyncClient, request: Json) -> Any:
    return {"status": (await client.health(request["service"])).name}


_METHODS: Mapping[str, Callable[[AsyncClient, Json], Any]] = {
    "tokenize": _tokenize, "detokenize": _detokenize, "count_tokens": _count_tokens, "render_chat": _render_chat,
    "list_models": _list_models, "get_model": _get_model, "load_model": _load_model, "unload_model": _unload_model,
    "server_info": _server_info, "health": _health,
}  # fmt: skip
