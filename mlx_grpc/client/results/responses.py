"""Protobuf responses -> dataclasses. Pure. Features and states of a newer server are kept as unknown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from mlx_grpc.client.results.data import (
    Generation,
    HealthStatus,
    Model,
    ModelState,
    RenderedChat,
    ServerInfo,
    ServerLimits,
    TokenCount,
    Tokens,
)
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import FinishReason, Timings, TokenLogprob, TopLogprob, Usage
from mlx_grpc.v1 import (
    generation_pb2,
    inference_service_pb2,
    model_pb2,
    server_pb2,
    server_service_pb2,
    tokenizer_service_pb2,
)


def seconds(duration: Duration) -> float:
    """A Duration in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def usage(message: generation_pb2.Usage) -> Usage:
    """Token counts."""
    return Usage(message.prompt_tokens, message.cached_prompt_tokens, message.completion_tokens)


def timings(message: generation_pb2.Timings) -> Timings:
    """Where the time went."""
    return Timings(
        queue_seconds=seconds(message.queue),
        prefill_seconds=seconds(message.prefill),
        first_token_seconds=seconds(message.time_to_first_token),
        decode_seconds=seconds(message.decode),
        total_seconds=seconds(message.total),
    )


def logprobs(messages: Iterable[generation_pb2.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """Log-probabilities with their alternatives."""
    return tuple(
        TokenLogprob(
            one.token_id,
            one.token,
            one.logprob,
            tuple(TopLogprob(top.token_id, top.token, top.logprob) for top in one.top),
        )
        for one in messages
    )


def finish_reason(number: int) -> FinishReason:
    """Why it ended. A reason that this client does not know is an error: guessing one would be a lie."""
    name = _name(generation_pb2.FinishReason, number, "FINISH_REASON_").upper()
    if name not in FinishReason.__members__:
        raise MlxGrpcError(f"the server sent finish reason {number}, unknown here: update mlx-grpc")
    return FinishReason[name]


def stop_token_id(detail: generation_pb2.StopDetail) -> int | None:
    """The token that ended it, where one did."""
    return detail.stop_token_id if detail.WhichOneof("stop") == "stop_token_id" else None


def generation(message: inference_service_pb2.GenerateResponse) -> Generation:
    """The first candidate and the facts of the call."""
    if not message.candidates:
        raise MlxGrpcError("the server's answer has no candidate")
    candidate = message.candidates[0]
    return Generation(
        text=candidate.text,
        token_ids=tuple(candidate.token_ids),
        logprobs=logprobs(candidate.logprobs),
        finish_reason=finish_reason(candidate.finish_reason),
        stop_string=candidate.stop_detail.stop_string,
        stop_token_id=stop_token_id(candidate.stop_detail),
        usage=usage(message.usage),
        timings=timings(message.timings),
        seed=message.seed,
        generation_id=message.generation_id,
        request_id=message.request_id,
        model=message.model,
    )


def text(message: tokenizer_service_pb2.DetokenizeResponse) -> str:
    """The text of token ids."""
    return message.text


def tokens(message: tokenizer_service_pb2.TokenizeResponse) -> Tokens:
    """Token ids and their bytes."""
    return Tokens(tuple(message.token_ids), tuple(message.pieces))


def token_count(message: tokenizer_service_pb2.CountTokensResponse) -> TokenCount:
    """A count and the context's length."""
    return TokenCount(message.count, message.context_length)


def rendered_chat(message: tokenizer_service_pb2.RenderChatResponse) -> RenderedChat:
    """The text of a conversation and its tokens."""
    return RenderedChat(message.text, tuple(message.token_ids))


def model(message: model_pb2.Model) -> Model:
    """A model of the server."""
    state = _name(model_pb2.ModelState, message.state, "MODEL_STATE_")
    known = {one.value for one in ModelState}
    return Model(
        id=message.id,
        state=ModelState(state) if state in known else ModelState.UNKNOWN,
        error=message.error,
        context_length=message.context_length,
        vocab_size=message.vocab_size,
        dtype=message.dtype,
        weights_bytes=message.weights_bytes,
        kv_bytes_per_token=message.kv_bytes_per_token,
        revision=message.revision,
        features=tuple(_name(model_pb2.ModelFeature, one, "MODEL_FEATURE_") for one in message.features),
        default=message.default,
        batching=_name(model_pb2.Batching, message.batching, "BATCHING_") if message.batching else "",
    )


def model_of(answer: Any) -> Model:
    """The model of GetModel's, LoadModel's or UnloadModel's answer."""
    return model(answer.model)


def server_info(message: server_service_pb2.GetServerInfoResponse) -> ServerInfo:
    """What the server is."""
    limits = message.limits
    return ServerInfo(
        version=message.version,
        mlx_version=message.mlx_version,
        mlx_lm_version=message.mlx_lm_version,
        backend=message.backend,
        device=message.device,
        limits=ServerLimits(
            max_queue=limits.max_queue,
            max_queue_tokens=limits.max_queue_tokens,
            max_batch=limits.max_batch,
            max_request_bytes=limits.max_request_bytes,
            default_max_tokens=limits.default_max_tokens,
            client_requests_per_minute=_sent(limits, "client_requests_per_minute"),
            client_tokens_per_minute=_sent(limits, "client_tokens_per_minute"),
            client_rows=_sent(limits, "client_rows"),
            client_waiting=_sent(limits, "client_waiting"),
        ),
        features=tuple(_name(server_pb2.ServerFeature, one, "SERVER_FEATURE_") for one in message.features),
        default_model=message.default_model,
    )


def health_status(message: Any) -> HealthStatus:
    """The status of a HealthCheckResponse; a number that is not known is UNKNOWN."""
    numbers = {0: HealthStatus.UNKNOWN, 1: HealthStatus.SERVING, 2: HealthStatus.NOT_SERVING}
    return (numbers | {3: HealthStatus.SERVICE_UNKNOWN}).get(message.status, HealthStatus.UNKNOWN)


def _sent(message: Any, field: str) -> int | None:
    """An optional number; None where it was not sent."""
    return getattr(message, field) if message.HasField(field) else None


def _name(kind: Any, number: int, prefix: str) -> str:
    """An enum's value without its prefix, in small letters; "unknown_7" for one not known here."""
    try:
        return str(kind.Name(number)).removeprefix(prefix).lower()
    except ValueError:
        return f"unknown_{number}"
