"""The stage with a long prompt among running streams."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from mlx_grpc.bench.prompts import words
from mlx_grpc.bench.record import Ask, Record
from tests.benchmarks.compare.rounds import Line, alternate
from tests.benchmarks.compare.stages import SERVERS, Bench

LONG_ENOUGH_TOKENS = 2048
RUNNING_AFTER = 4  # deliveries


def giant(bench: Bench) -> list[Line]:
    """A long prompt among running streams: the longest that any of them waits, until the giant's first token."""
    size = bench.size
    gap = Line(f"{size.giant_tokens}-token prompt among {size.giant_streams} streams", "s, longest gap of the streams")
    gap.aim = "≤ 1/3 of mlx_lm.server's"
    first = Line("the same prompt's own wait", "s to the first token")
    first.note = "what fairness costs the giant: no aim"
    bench.warm(SERVERS, bench.asks("warm giant", size.giant_streams, 0, 2))

    def measure(side: str, number: int) -> None:
        longest, wait, failed = asyncio.run(_giant(bench, side, number))
        gap.add(side, longest, failed)
        first.add(side, wait)

    alternate(size.rounds, bench.clock, SERVERS, measure)
    return [gap, first]


async def _giant(bench: Bench, side: str, number: int) -> tuple[float, float, int]:
    """The longest gap, the giant's wait, failures."""
    asks = bench.asks("giant", bench.size.giant_streams, number, LONG_ENOUGH_TOKENS)
    dice = random.Random(f"the giant {number}")
    async with bench.sides.driver(side) as driver:
        records = [_Running(time.perf_counter()) for _ in asks]
        tasks = [asyncio.create_task(driver.ask(ask, record)) for ask, record in zip(asks, records, strict=True)]
        try:
            await _all_or_ended([record.past(RUNNING_AFTER) for record in records], tasks)
            big = Record(time.perf_counter())
            await driver.ask(Ask(words(bench.size.giant_tokens, dice), max_tokens=2), big)
            # One more each: the gap that the giant's end cut into.
            await _all_or_ended([record.past(len(record.deliveries) + 1) for record in records], tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    longest = max(_longest_gap(record, big.arrived_seconds) for record in records)
    return longest, big.first_seconds or float("nan"), sum(bool(one.failure) for one in (*records, big))


class _Running(Record):
    """A record that says when it has so many deliveries."""

    _wanted = 0
    _reached: asyncio.Event | None = None

    def past(self, deliveries: int) -> asyncio.Event:
        """Set once there are so many."""
        self._wanted, self._reached = deliveries, asyncio.Event()
        return self._reached

    def deliver(self, text: str) -> None:
        """As Record.deliver."""
        super().deliver(text)
        if self._reached is not None and len(self.deliveries) >= self._wanted:
            self._reached.set()


async def _all_or_ended(events: Sequence[asyncio.Event], tasks: Sequence[asyncio.Task[None]]) -> None:
    """Each event is set, or the request that would set it has ended."""
    for event, task in zip(events, tasks, strict=True):
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


def _longest_gap(record: Record, since_seconds: float) -> float:
    """Of the gaps that end after the moment."""
    pairs = zip(record.deliveries, record.deliveries[1:], strict=False)
    return max((later - earlier for earlier, later in pairs if later >= since_seconds), default=float("nan"))
