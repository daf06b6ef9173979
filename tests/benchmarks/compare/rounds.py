"""Alternating rounds: each side once a round, in an order that moves, for as long as the stage's time lasts."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Line:
    """One measure: each side's figure in each round, and what is wanted of ours.

    `failures` counts requests of all rounds that failed, by side. `aim` is a sentence of the table.
    """

    name: str
    unit: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    aim: str = ""
    note: str = ""

    def add(self, side: str, figure: float, failed: int = 0) -> None:
        """A round's figure."""
        self.figures.setdefault(side, []).append(figure)
        self.failures[side] = self.failures.get(side, 0) + failed

    def median(self, side: str) -> float:
        """NaN where nothing was measured."""
        known = [one for one in self.figures.get(side, ()) if not math.isnan(one)]
        return statistics.median(known) if known else math.nan

    def ratio(self, side: str, other: str) -> tuple[float, float, float] | None:
        """Median, least and most of the rounds' own ratios: a machine that is slow for a round is so for both."""
        pairs = zip(self.figures.get(side, ()), self.figures.get(other, ()), strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if theirs > 0.0 and not math.isnan(mine)]
        return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None

    @property
    def rounds(self) -> int:
        """How many rounds were run."""
        return max((len(figures) for figures in self.figures.values()), default=0)

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        figures = {
            side: [None if math.isnan(one) else round(one, 6) for one in many] for side, many in self.figures.items()
        }
        return asdict(self) | {"figures": figures}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Line:
        """From JSON."""
        figures = {side: [math.nan if one is None else one for one in many] for side, many in plain["figures"].items()}
        return cls(**{**plain, "figures": figures})


@dataclass(frozen=True)
class Clock:
    """A stage's share of the time."""

    until_seconds: float

    def has_time(self, last_seconds: float) -> bool:
        """Whether another round, as long as the last one, ends in time."""
        return time.monotonic() + last_seconds <= self.until_seconds


def alternate(rounds: int, clock: Clock, sides: Sequence[str], measure: Callable[[str, int], None]) -> None:
    """`measure(side, round)` for each side in each round. One round is always run; others while there is time."""
    for number in range(rounds):
        began = time.monotonic()
        turn = number % len(sides)
        for side in (*sides[turn:], *sides[:turn]):
            measure(side, number)
        if not clock.has_time(time.monotonic() - began):
            return
