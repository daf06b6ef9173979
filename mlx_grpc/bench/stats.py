"""Records -> figures. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mlx_grpc.bench.record import Record


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which `percent` of the values lie, linear between neighbours (the usual definition, R's type 7);
    NaN without values."""
    ranked = sorted(values)
    if not ranked:
        return math.nan
    at = (len(ranked) - 1) * percent / 100.0
    below = math.floor(at)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (at - below)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds; NaN where nothing was measured."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """The three of these values."""
        return cls(percentile(values, 50), percentile(values, 95), percentile(values, 99))


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of requests gave. Times are those of the requests that did not fail."""

    requests: int
    failures: dict[str, int] = field(default_factory=dict)
    """How many failed, by code."""
    seconds: float = 0.0
    """From the first arrival to the last end."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that a cache held, where the server says so."""
    completion_tokens: int = 0
    tokens_per_second: float = 0.0
    """Completion tokens of all requests over `seconds`."""
    first: Percentiles = field(default_factory=lambda: Percentiles.of(()))
    """From a request's arrival to its first output."""
    between: Percentiles = field(default_factory=lambda: Percentiles.of(()))
    """Between one message with output and the next. A message may bring several tokens."""

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.failures.values())


def summarise(records: Sequence[Record]) -> Summary:
    """The figures of a run."""
    if not records:
        return Summary(0)
    good = [record for record in records if not record.failure]
    seconds = max(record.ended_seconds for record in records) - min(record.arrived_seconds for record in records)
    completion_tokens = sum(record.completion_tokens for record in records)
    return Summary(
        requests=len(records),
        failures=dict(Counter(record.failure for record in records if record.failure).most_common()),
        seconds=seconds,
        prompt_tokens=sum(record.prompt_tokens for record in records),
        cached_tokens=sum(record.cached_tokens for record in records),
        completion_tokens=completion_tokens,
        tokens_per_second=completion_tokens / seconds if seconds > 0.0 else 0.0,
        first=Percentiles.of([first for record in good if (first := record.first_seconds) is not None]),
        between=Percentiles.of([gap for record in good for gap in record.gaps_seconds]),
    )
