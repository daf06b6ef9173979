"""A bench's runs as a table's rows and as JSON. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_grpc.bench.stats import Percentiles, Summary

HEADERS = (
    "LOAD", "REQUESTS", "FAILED", "TOKENS/S", "FIRST P50 MS", "P95", "P99", "BETWEEN P50 MS", "P95", "P99",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One load and what it gave: `streams` of a closed loop or arrivals `per_second` of an open one; the other is 0."""

    streams: int
    per_second: float
    summary: Summary

    @property
    def load(self) -> str:
        """In words."""
        if self.streams:
            return f"{self.streams} stream{'s' * (self.streams != 1)}"
        return f"{self.per_second:g}/s"


def row(run: Run) -> tuple[str, ...]:
    """A row under HEADERS."""
    summary = run.summary
    return (
        run.load,
        str(summary.requests),
        str(summary.failed),
        f"{summary.tokens_per_second:.1f}",
        *_milliseconds(summary.first),
        *_milliseconds(summary.between),
    )


def failure_lines(runs: Sequence[Run]) -> list[str]:
    """A line for each load and code."""
    return [f"{run.load}: {count} x {code}" for run in runs for code, count in run.summary.failures.items()]


def as_json(runs: Sequence[Run], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings and runs; times in seconds, null where nothing was measured."""
    return {
        "settings": settings,
        "runs": [
            {"streams": run.streams or None, "arrivals_per_second": run.per_second or None} | _plain(run.summary)
            for run in runs
        ],
    }


def _plain(summary: Summary) -> dict[str, Any]:
    facts = dataclasses.asdict(summary)
    for name in ("first", "between"):
        times = facts.pop(name)
        facts[f"{name}_seconds"] = {key: None if math.isnan(one) else one for key, one in times.items()}
    return facts


def _milliseconds(times: Percentiles) -> tuple[str, ...]:
    return tuple("-" if math.isnan(one) else f"{one * 1000:.1f}" for one in (times.p50, times.p95, times.p99))
