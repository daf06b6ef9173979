"""What a test found, and what all of them found together. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Failed(Exception):
    """The server did what it must not; one line for a person."""


class Skipped(Exception):
    """The test could not be made; one line says why."""


class State(enum.Enum):
    """How a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A test that has ended. `detail` says what was seen, what is wrong, or why it was skipped."""

    name: str
    state: State
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class Speed:
    """Calls that ran at once: generated tokens of all of them together, prefill and queue in the time."""

    at_once: int
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of all the calls together."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Report:
    """The whole run."""

    target: str
    seconds: float
    outcomes: tuple[Outcome, ...]
    speeds: tuple[Speed, ...]
    """By calls at once, fewest first."""

    @property
    def total(self) -> int:
        """Passed, failed and skipped together."""
        return len(self.outcomes)

    def count(self, state: State) -> int:
        """How many tests ended so."""
        return sum(outcome.state is state for outcome in self.outcomes)

    def ratio(self, speed: Speed) -> float | None:
        """How many times as fast as the same calls one after another; None when one call alone was not measured."""
        if not self.speeds or self.speeds[0].at_once != 1:
            return None
        return speed.tokens_per_second / self.speeds[0].tokens_per_second

    def as_json(self) -> dict[str, Any]:
        """For json.dumps. Seconds are cut to the millisecond."""
        tests = [
            {"name": one.name, "state": one.state.value, "seconds": round(one.seconds, 3), "detail": one.detail}
            for one in self.outcomes
        ]
        return {
            "target": self.target,
            "seconds": round(self.seconds, 3),
            "total": self.total,
            **{state.value: self.count(state) for state in State},
            "tests": tests,
            "speeds": [self._speed_json(speed) for speed in self.speeds],
        }

    def _speed_json(self, speed: Speed) -> dict[str, Any]:
        ratio = self.ratio(speed)
        return {
            "at_once": speed.at_once,
            "seconds": round(speed.seconds, 3),
            "tokens_per_second": round(speed.tokens_per_second, 2),
            "ratio_to_serial": None if ratio is None else round(ratio, 3),
        }
