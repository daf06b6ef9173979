"""The load generator's pure parts: arrivals, mixes, prompts; and its two loops, over a driver that only notes."""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.bench.load import closed_loop, open_loop, poisson_arrivals
from mlx_grpc.bench.prompts import Share, make_asks, parse_mix
from mlx_grpc.bench.record import Ask, Record


class Noting:
    """A driver whose requests end when the loop has come round; it counts how many run at once."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.asked: list[Ask] = []

    async def ask(self, ask: Ask, record: Record) -> None:
        self.asked.append(ask)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        record.ended_seconds = time.perf_counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    """And others for another."""
    assert poisson_arrivals(2.0, 50, seed=1) == poisson_arrivals(2.0, 50, seed=1)
    assert poisson_arrivals(2.0, 50, seed=1) != poisson_arrivals(2.0, 50, seed=2)


@given(st.floats(0.01, 1000), st.integers(0, 50), st.integers())
def test_arrivals_come_one_after_the_other(per_second: float, count: int, seed: int) -> None:
    """As many as asked for, in order, none before the start."""
    arrivals = poisson_arrivals(per_second, count, seed)
    assert len(arrivals) == count
    assert arrivals == sorted(arrivals)
    assert all(one >= 0.0 for one in arrivals)


def test_arrivals_have_the_rate_and_spread_of_a_poisson_process() -> None:
    """Gaps with the mean 1/rate, and a standard deviation equal to the mean, as the exponential distribution has."""
    arrivals = poisson_arrivals(4.0, 20_000, seed=7)
    gaps = [later - earlier for earlier, later in zip([0.0, *arrivals], arrivals, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert mean == pytest.approx(0.25, rel=0.03)
    assert deviation == pytest.approx(0.25, rel=0.03)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_rate_must_be_more_than_none(rate: float) -> None:
    """The error names it."""
    with pytest.raises(ValueError, match="rate"):
        poisson_arrivals(rate, 1, seed=0)


def test_a_mix_is_read() -> None:
    """Lengths, and weights where given."""
    assert parse_mix("128:64") == (Share(128, 64),)
    assert parse_mix("64:32@3, 2000:128@0.5") == (Share(64, 32, 3.0), Share(2000, 128, 0.5))


@pytest.mark.parametrize("text", ["", "128", "128:", ":64", "0:64", "128:0", "a:b", "1:1@0", "1:1@nan", "1:1,,1:1"])
def test_a_bad_mix_is_refused(text: str) -> None:
    """The error names the mix and says how one looks."""
    with pytest.raises(ValueError, match=r"mix: .*PROMPT:OUTPUT"):
        parse_mix(text)


def test_requests_have_the_mix_lengths_and_weights() -> None:
    """Three of four are short where that is the weight; each prompt has as many words as tokens were asked for."""
    asks = make_asks(parse_mix("8:4@3,40:16@1"), 2000, seed=5)
    lengths = {(len(ask.prompt.split()), ask.max_tokens) for ask in asks}
    assert lengths == {(8, 4), (40, 16)}
    assert sum(ask.max_tokens == 4 for ask in asks) == pytest.approx(1500, abs=80)


def test_prompts_are_repeatable_and_differ() -> None:
    """The same seed gives the same prompts, and no two of them are alike."""
    mix = parse_mix("32:4")
    first = make_asks(mix, 100, seed=1)
    assert first == make_asks(mix, 100, seed=1)
    assert len({ask.prompt for ask in [*first, *make_asks(mix, 100, seed=2)]}) == 200


def test_seeded_requests_have_a_seed_each() -> None:
    """And others none."""
    mix = parse_mix("4:4")
    assert [ask.seed for ask in make_asks(mix, 3, seed=1, seeded=True)] == [0, 1, 2]
    assert [ask.seed for ask in make_asks(mix, 2, seed=1)] == [None, None]


async def _closed(driver: Noting, asks: list[Ask], streams: int) -> list[Record]:
    async with driver:
        return await closed_loop(driver, asks, streams)


@pytest.mark.parametrize(("requests", "streams", "most"), [(10, 3, 3), (2, 8, 2), (5, 1, 1), (0, 4, 0)])
def test_a_closed_loop_runs_so_many_at_once(requests: int, streams: int, most: int) -> None:
    """Every request once, never more at a time than there are streams."""
    driver, asks = Noting(), [Ask(prompt=str(number)) for number in range(requests)]
    records = asyncio.run(_closed(driver, asks, streams))
    assert (driver.asked, len(records), driver.most) == (asks, requests, most)


def test_an_open_loop_sends_each_at_its_time() -> None:
    """Not before, and the record holds the moment that was due rather than the one at which it was sent."""
    driver, asks = Noting(), [Ask(prompt=str(number)) for number in range(3)]
    records = asyncio.run(open_loop(driver, asks, [0.0, 0.01, 0.02]))
    due = [record.arrived_seconds - records[0].arrived_seconds for record in records]
    assert due == pytest.approx([0.0, 0.01, 0.02])
    assert driver.asked == asks
    assert all(record.ended_seconds >= record.arrived_seconds for record in records)
