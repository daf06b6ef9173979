"""The server at one moment, as plain frozen data: what the status answers, the live page and the metrics are made of.

No prompt and no output is ever in it. Made by `service.survey`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlx_grpc.observe.stats import RecentError


class ServerState(enum.Enum):
    """What a call for the default model would meet now."""

    SERVING = "SERVING"
    LOADING = "LOADING"
    UNLOADED = "UNLOADED"
    FAILED = "FAILED"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of the calls that ended last, in seconds; None where there was none."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        """The nearest-rank quantiles: each is a value that was measured."""
        if not values:
            return cls()
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(*(ordered[round(share * last)] for share in (0.5, 0.9, 0.99)))


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """An accepted call that has not ended. `state` is waiting, prefill, decode or leaving."""

    generation_id: str
    request_id: str
    model: str
    state: str
    priority: str
    age_seconds: float
    prompt_tokens: int
    generated_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: its life, its queue, its batch, its memory.

    `batching` is how its rows share the device: PADDED, ALIGNED or ALONE; empty until loaded.
    `kv_reserved_bytes` is what the running rows may come to take at their peak, `kv_used_bytes` what the engine last
    said that they take, `kv_budget_bytes` what they may take (0: no limit). `engine_memory_bytes` is the engine's
    resident memory, None where the system does not tell. `stalled_seconds` is the time since the engine last
    delivered, with work in flight.
    """

    id: str
    default: bool
    state: str
    error: str
    engine_pid: int | None
    device: str
    batching: str
    context_length: int
    weights_bytes: int
    engine_memory_bytes: int | None
    queue_depth: int
    queue_limit: int
    queue_by_priority: Mapping[str, int]
    queue_tokens: int
    active_rows: int
    row_limit: int
    kv_reserved_bytes: int
    kv_used_bytes: int
    kv_budget_bytes: int
    stalled_seconds: float
    restarts: int
    crashes: int
    stalls: int
    resumed: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole server. Sums over the models stand beside them; `running` is bounded, `running_count` is not."""

    version: str
    pid: int
    unix_seconds: float
    uptime_seconds: float
    state: ServerState
    reason: str
    default_model: str
    models: tuple[ModelStatus, ...]
    queue_depth: int
    queue_limit: int
    queue_by_priority: Mapping[str, int]
    active_rows: int
    row_limit: int
    tokens_per_second: float
    kv_reserved_bytes: int
    kv_used_bytes: int
    kv_budget_bytes: int
    memory_bytes: int | None
    restarts: int
    crashes: int
    stalls: int
    resumed: int
    accepted: int
    completed: Mapping[str, int]
    refused: Mapping[str, int]
    failed: Mapping[str, int]
    abandoned: int
    prompt_tokens: int
    generated_tokens: int
    queue_seconds: Quantiles
    first_token_seconds: Quantiles
    loop_lag_seconds: float
    worst_loop_lag_seconds: float
    running_count: int
    running: tuple[RunningRequest, ...]
    recent_errors: tuple[RecentError, ...]

    def as_json(self) -> dict[str, Any]:
        """For json.dumps. Durations are cut to the microsecond."""
        return {**_tidy(asdict(self)), "state": self.state.value}


def _tidy(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tidy(item) for item in value]
    return value
