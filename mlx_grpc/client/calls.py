"""The calls that are answered once, written once: each function says what to send where and how to read the
answer.

`Client` and `AsyncClient` make their methods of these, blocking and awaitable. `timeout_seconds` is the
call's deadline; None takes the client's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack

from grpc_health.v1 import health_pb2

from mlx_grpc.client.requests import build as requests
from mlx_grpc.client.requests.options import GenerateOptions, MessageLike
from mlx_grpc.client.results import responses
from mlx_grpc.client.results.data import Generation, HealthStatus, Model, RenderedChat, ServerInfo, TokenCount, Tokens
from mlx_grpc.request import Chat
from mlx_grpc.v1 import model_service_pb2, server_service_pb2

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Unary(Generic[Result]):
    """A call: the stub's and its method's name, the request, how to read the answer, the deadline."""

    service: str
    method: str
    request: Any
    decode: Callable[[Any], Result]
    timeout_seconds: float | None


def generate(
    prompt: str | None = None, *, timeout_seconds: float | None = None, **options: Unpack[GenerateOptions]
) -> Unary[Generation]:
    """Generates and returns a `Generation` when all is done.

    Exactly one of `prompt`, `messages`, `chat`, `token_ids`; see `GenerateOptions` for the rest.
    """
    request = requests.generate_request(prompt, **options)
    return Unary("inference", "Generate", request, responses.generation, timeout_seconds)


def tokenize(
    text: str | None = None,
    *,
    messages: Sequence[MessageLike] | None = None,
    chat: Chat | None = None,
    model: str | None = None,
    add_special_tokens: bool | None = None,
    timeout_seconds: float | None = None,
) -> Unary[Tokens]:
    """The `Tokens` of a text or of a conversation. Exactly one of `text`, `messages`, `chat`.

    `add_special_tokens`, for a text, puts the model's usual special tokens in front; the server's default is
    True.
    """
    request = requests.tokenize_request(text, messages, chat, model, add_special_tokens)
    return Unary("tokenizer", "Tokenize", request, responses.tokens, timeout_seconds)


def detokenize(
    token_ids: Sequence[int], *, model: str | None = None, timeout_seconds: float | None = None
) -> Unary[str]:
    """The text of token ids, special tokens included."""
    request = requests.detokenize_request(token_ids, model)
    return Unary("tokenizer", "Detokenize", request, responses.text, timeout_seconds)


def count_tokens(
    text: str | None = None,
    *,
    messages: Sequence[MessageLike] | None = None,
    chat: Chat | None = None,
    model: str | None = None,
    timeout_seconds: float | None = None,
) -> Unary[TokenCount]:
    """How many tokens `generate` would see, as a `TokenCount`. Exactly one of `text`, `messages`, `chat`."""
    request = requests.count_tokens_request(text, messages, chat, model)
    return Unary("tokenizer", "CountTokens", request, responses.token_count, timeout_seconds)


def render_chat(
    messages: Chat | Sequence[MessageLike],
    *,
    model: str | None = None,
    timeout_seconds: float | None = None,
) -> Unary[RenderedChat]:
    """A conversation as the model's chat template renders it, as a `RenderedChat`."""
    request = requests.render_chat_request(messages, model)
    return Unary("tokenizer", "RenderChat", request, responses.rendered_chat, timeout_seconds)


def list_models_page(
    page_size: int | None, page_token: str, timeout_seconds: float | None
) -> Unary[model_service_pb2.ListModelsResponse]:
    """One page of the models that the server knows."""
    request = requests.list_models_request(page_size, page_token)
    return Unary("model", "ListModels", request, lambda answer: answer, timeout_seconds)


def get_model(model: str | None = None, *, timeout_seconds: float | None = None) -> Unary[Model]:
    """What the server knows of one `Model`; of its default one when `model` is None."""
    request = model_service_pb2.GetModelRequest(model=model)
    return Unary("model", "GetModel", request, responses.model_of, timeout_seconds)


def load_model(model: str, *, timeout_seconds: float | None = None) -> Unary[Model]:
    """Starts to load a model and returns the `Model` at once; poll `get_model`, or `watch("models/<id>")`."""
    request = model_service_pb2.LoadModelRequest(model=model)
    return Unary("model", "LoadModel", request, responses.model_of, timeout_seconds)


def unload_model(model: str, *, force: bool | None = None, timeout_seconds: float | None = None) -> Unary[Model]:
    """Lets a model finish its requests (ends them when `force`), then frees its memory; returns at once."""
    request = model_service_pb2.UnloadModelRequest(model=model, force=force)
    return Unary("model", "UnloadModel", request, responses.model_of, timeout_seconds)


def server_info(*, timeout_seconds: float | None = None) -> Unary[ServerInfo]:
    """Versions, device, limits and features, as a `ServerInfo`."""
    request = server_service_pb2.GetServerInfoRequest()
    return Unary("server", "GetServerInfo", request, responses.server_info, timeout_seconds)


def health_check(service: str, timeout_seconds: float | None) -> Unary[HealthStatus]:
    """The health of a service; NOT_FOUND for one that the server does not know."""
    request = health_pb2.HealthCheckRequest(service=service)
    return Unary("health", "Check", request, responses.health_status, timeout_seconds)
