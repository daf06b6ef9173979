"""What the client's methods return: frozen dataclasses. A stream's events are those of `mlx_grpc.request`."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mlx_grpc.request import FinishReason, Timings, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation that ended. `token_ids` and `logprobs` are empty unless they were asked for.

    `stop_string` or `stop_token_id` says what ended it, where something did; neither is part of `text`.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason
    stop_string: str
    stop_token_id: int | None
    usage: Usage
    timings: Timings
    seed: int
    generation_id: str
    request_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids and, in step with them, each token's bytes."""

    token_ids: tuple[int, ...]
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How many tokens the input has, and how many the model's context holds, prompt and output together."""

    count: int
    context_length: int


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as the model sees it."""

    text: str
    token_ids: tuple[int, ...]


class ModelState(enum.Enum):
    """Where a model is in its life."""

    UNKNOWN = "unknown"
    """A state that this version of the client does not know."""
    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the server; numbers are 0 and texts empty until it is loaded. `features` are "chat", "reproducible";
    `batching` says how its rows may share the device: "padded", "aligned" or "alone"."""

    id: str
    state: ModelState
    error: str
    context_length: int
    vocab_size: int
    dtype: str
    weights_bytes: int
    kv_bytes_per_token: int
    revision: str
    features: tuple[str, ...]
    default: bool
    batching: str = ""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds that hold for every call; those of queue, batch and rows for each model. None: no limit."""

    max_queue: int
    max_queue_tokens: int
    max_batch: int
    max_request_bytes: int
    default_max_tokens: int
    client_requests_per_minute: int | None = None
    client_tokens_per_minute: int | None = None
    client_rows: int | None = None
    client_waiting: int | None = None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server is. Versions of MLX and the device are empty until a model is loaded."""

    version: str
    mlx_version: str
    mlx_lm_version: str
    backend: str
    device: str
    limits: ServerLimits
    features: tuple[str, ...]
    default_model: str


class HealthStatus(enum.Enum):
    """What grpc.health.v1 says of a service."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"
