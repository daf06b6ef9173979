"""Rates from measured steps, and the waits that follow from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.schedule.rates import Rates


def measured(*, residence: float = 2.0, prefill_tokens: int = 256, step_seconds: float = 0.5) -> Rates:
    rates = Rates()
    rates.record_step(step_seconds, 4, prefill_tokens)
    rates.record_finished(residence)
    return rates


def test_nothing_measured_is_unknown() -> None:
    """Before the first step every rate and every wait that needs one is None."""
    rates = Rates()
    known = (rates.steps_per_second, rates.decode_tokens_per_second, rates.prefill_tokens_per_second)
    assert known == (None, None, None)
    assert rates.estimated_wait_seconds(1, 4) is None
    assert rates.first_token_seconds(10, 0, 4) is None


def test_the_first_sample_counts_in_full() -> None:
    """One step of half a second gives its own rates."""
    rates = measured()
    assert rates.steps_per_second == pytest.approx(2.0)
    assert rates.decode_tokens_per_second == pytest.approx(8.0)
    assert rates.prefill_tokens_per_second == pytest.approx(512.0)


def test_new_steps_outweigh_old_ones() -> None:
    """After a few half-lives at a new speed the rate is the new one."""
    rates = Rates()
    for seconds in [0.1] * 100 + [0.2] * 500:
        rates.record_step(seconds, 1, 0)
    assert rates.steps_per_second == pytest.approx(5.0, rel=0.01)


def test_one_very_slow_step_is_forgotten() -> None:
    """A first step of 40 s (a model that warms up) no longer rules after as many seconds of work."""
    rates = Rates()
    rates.record_step(40.0, 1, 0)
    for _ in range(400):
        rates.record_step(0.1, 1, 0)
    assert rates.steps_per_second == pytest.approx(10.0, rel=0.5)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_step_of_no_time_is_left_out(seconds: float) -> None:
    """A clock that stood still or went back spoils nothing."""
    rates = measured()
    rates.record_step(seconds, 4, 256)
    assert rates.steps_per_second == pytest.approx(2.0)


def test_tiny_prompts_do_not_make_long_ones_look_hopeless() -> None:
    """Steps that prefill a few tokens say nothing about the rate of long prompts."""
    rates = measured()
    for _ in range(1000):
        rates.record_step(0.5, 4, 3)
    assert rates.prefill_tokens_per_second == pytest.approx(512.0)


def test_the_wait_is_departures_over_the_rate_of_departures() -> None:
    """4 rows of 2 s each leave at 2 a second: the third departure comes after 1.5 s."""
    assert measured().estimated_wait_seconds(3, 4) == pytest.approx(1.5)


def test_no_departure_is_no_wait() -> None:
    """Who finds a free row does not wait, measured or not."""
    assert Rates().estimated_wait_seconds(0, 4) == 0.0


def test_the_first_token_waits_for_departures_and_its_prefill() -> None:
    """Queue and prefill add up: 1 s in the queue, 1,024 tokens at 512 a second."""
    assert measured().first_token_seconds(1024, 2, 4) == pytest.approx(3.0)


@given(st.lists(st.floats(0.001, 10.0), min_size=1))
def test_a_rate_stays_between_the_slowest_and_the_fastest(steps: list[float]) -> None:
    """No weighting makes up a speed that was never seen."""
    rates = Rates()
    for seconds in steps:
        rates.record_step(seconds, 1, 100)
    slack = 1.000001
    assert rates.steps_per_second is not None
    assert rates.prefill_tokens_per_second is not None
    assert 1 / max(steps) / slack <= rates.steps_per_second <= 1 / min(steps) * slack
    assert 100 / max(steps) / slack <= rates.prefill_tokens_per_second <= 100 / min(steps) * slack
