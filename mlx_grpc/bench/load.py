"""How load is put on a server: a closed loop of so many streams, or an open loop of arrivals that wait for nobody."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence

from mlx_grpc.bench.record import Ask, Driver, Record


def poisson_arrivals(per_second: float, count: int, seed: int) -> list[float]:
    """Seconds from the start at which requests arrive: gaps drawn from the exponential distribution with mean
    1 / `per_second`. The first is not at 0: the process began before. Raises ValueError for a rate of 0 or less."""
    if not per_second > 0.0:
        raise ValueError(f"rate: {per_second:g} requests/s is not more than 0")
    dice = random.Random(f"arrivals {seed}")
    arrivals, now = [], 0.0
    for _ in range(count):
        now += dice.expovariate(per_second)
        arrivals.append(now)
    return arrivals


async def closed_loop(driver: Driver, asks: Iterable[Ask], streams: int) -> list[Record]:
    """So many streams, each of which sends its next request when the last has ended."""
    waiting, records = iter(asks), []

    async def stream() -> None:
        for ask in waiting:
            records.append(record := Record(time.perf_counter()))
            await driver.ask(ask, record)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(stream())
    return records


async def open_loop(driver: Driver, asks: Sequence[Ask], arrivals: Sequence[float]) -> list[Record]:
    """Each request at its time, whatever became of those before. Raises ValueError for lists of different lengths."""
    began, records = time.perf_counter(), []
    async with asyncio.TaskGroup() as tasks:
        for ask, offset in zip(asks, arrivals, strict=True):
            await asyncio.sleep(max(0.0, began + offset - time.perf_counter()))
            records.append(record := Record(began + offset))
            tasks.create_task(driver.ask(ask, record))
    return records
