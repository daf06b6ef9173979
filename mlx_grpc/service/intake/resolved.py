"""What one call is going to do, decided in full before it is queued."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_grpc.engine.messages import SamplingParams
from mlx_grpc.request import CacheControl, Output, Priority


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A request, validated and complete: nothing is left to a default. Times are seconds on the loop's clock.

    `client` is who asks, as `auth.clients` names them."""

    generation_id: str
    request_id: str
    client: str
    model: str
    prompt: list[int]
    sampling: SamplingParams
    max_tokens: int
    min_tokens: int
    eos_ids: frozenset[int]
    stop_token_ids: frozenset[int]
    stop_strings: tuple[str, ...]
    max_duration_seconds: float | None
    output: Output
    priority: Priority
    cache: CacheControl
    start_of_text: bool
    arrived_seconds: float
    deadline_seconds: float | None
