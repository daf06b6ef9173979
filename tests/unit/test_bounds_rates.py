"""Requests and tokens a minute for each client: what passes, when the next may come, and how many are remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.bounds.rates import MAX_CLIENTS, ClientRates
from mlx_grpc.errors import RateLimited


def asks(rates: ClientRates, client: str, now: float) -> float:
    """0 where a request may be made now, else after how many seconds it is told to come again."""
    wait: float | None = 0.0
    try:
        rates.check_tokens(client, now)
        rates.take_request(client, now)
    except RateLimited as refused:
        wait = refused.retry_after_seconds or None  # no refusal is without a time
    assert wait is not None
    return wait


def test_without_limits_nothing_is_refused_or_remembered() -> None:
    """The default costs nothing."""
    rates = ClientRates()
    assert [asks(rates, "ann", 0.0) for _ in range(100)] == [0.0] * 100
    rates.spend_tokens("ann", 10**9, 0.0)
    assert asks(rates, "ann", 0.0) == 0.0
    assert rates.clients == 0
    assert not rates.limits_tokens


def test_one_client_is_none_of_anothers_business() -> None:
    """Each has its own buckets."""
    rates = ClientRates(requests_per_minute=1, tokens_per_minute=60)
    assert asks(rates, "ann", 0.0) == 0.0
    assert asks(rates, "ann", 0.0) > 0.0
    rates.spend_tokens("ann", 1000, 0.0)
    assert asks(rates, "ben", 0.0) == 0.0


def test_a_burst_is_a_tenth_of_a_minute() -> None:
    """Then one request for each that the rate allows."""
    rates = ClientRates(requests_per_minute=100)
    assert [asks(rates, "ann", 0.0) for _ in range(11)] == [0.0] * 10 + [pytest.approx(0.6)]
    assert asks(rates, "ann", 0.6) == 0.0


def test_a_refused_request_costs_nothing() -> None:
    """Whoever asks too often is served as often as one that waits."""
    rates = ClientRates(requests_per_minute=6)
    served = sum(asks(rates, "ann", tenth / 10) == 0.0 for tenth in range(6000))
    assert served == 60


@pytest.mark.parametrize("per_minute", [1, 7, 60, 1000])
def test_what_it_is_told_is_when_it_may_come(per_minute: int) -> None:
    """At that time a request passes, and a millisecond before it does not."""
    rates = ClientRates(requests_per_minute=per_minute)
    now = 1000.0
    for _ in range(20):
        while (wait := asks(rates, "ann", now)) == 0.0:
            pass
        assert asks(rates, "ann", now + wait - 0.002) > 0.0
        now += wait
        assert asks(rates, "ann", now) == 0.0


def test_tokens_that_came_are_paid_for_before_the_next_request() -> None:
    """An answer may overdraw the bucket: the next request waits until it is filled again."""
    rates = ClientRates(tokens_per_minute=600)
    rates.spend_tokens("ann", 60, 0.0)
    assert asks(rates, "ann", 0.0) == 0.0
    rates.spend_tokens("ann", 100, 0.0)
    assert asks(rates, "ann", 0.0) == pytest.approx(10.0)
    assert asks(rates, "ann", 9.9) == pytest.approx(0.1)
    assert asks(rates, "ann", 10.0) == 0.0


def test_the_limit_is_named() -> None:
    """A program can tell which of the limits it was."""
    rates = ClientRates(requests_per_minute=1, tokens_per_minute=60)
    rates.take_request("ann", 0.0)
    with pytest.raises(RateLimited, match=r"1 requests a minute: try again in 60\.00 s") as of_requests:
        rates.take_request("ann", 0.0)
    rates.spend_tokens("ann", 100, 0.0)
    with pytest.raises(RateLimited, match="60 tokens a minute") as of_tokens:
        rates.check_tokens("ann", 0.0)
    named = [refused.value.metadata["limit"] for refused in (of_requests, of_tokens)]
    assert named == ["client_requests_per_minute", "client_tokens_per_minute"]


@given(st.integers(1, 300), st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_no_minute_has_more_than_it_may(per_minute: int, pauses: list[float]) -> None:
    """Whenever requests come: any minute has at most a tenth more than the rate, and one."""
    rates, now, passed = ClientRates(requests_per_minute=per_minute), 0.0, list[float]()
    for pause in pauses:
        now += pause
        if asks(rates, "ann", now) == 0.0:
            passed.append(now)
    for began in passed:
        within = sum(began <= moment < began + 60 for moment in passed)
        assert within <= 1.1 * per_minute + 1


@given(st.integers(1, 500), st.integers(10, 500))
def test_tokens_are_right_in_the_long_run(cost: int, per_minute: int) -> None:
    """A client that comes as soon as it may has its tokens within one percent and one answer, whatever one costs."""
    rates, now, spent = ClientRates(tokens_per_minute=per_minute), 0.0, 0
    while now < 600:
        wait = asks(rates, "ann", now)
        if wait == 0.0:
            rates.spend_tokens("ann", cost, now)
            spent += cost
        now += wait
    assert 10 * per_minute - 1 <= spent <= 10.1 * per_minute + cost + 1


def test_idle_clients_are_forgotten() -> None:
    """A client whose buckets are full again is as good as new."""
    rates = ClientRates(requests_per_minute=60)
    for number in range(100):
        asks(rates, f"client {number}", 0.0)
    for number in range(100):
        asks(rates, f"late {number}", 10.0)
    assert rates.clients == 100


def test_the_table_is_bounded() -> None:
    """With more clients than it holds, those seen least recently begin anew."""
    rates = ClientRates(requests_per_minute=1)
    for number in range(MAX_CLIENTS + 100):
        assert asks(rates, f"client {number}", 0.0) == 0.0
    assert rates.clients == MAX_CLIENTS
    assert asks(rates, f"client {MAX_CLIENTS + 99}", 0.0) > 0.0
    assert asks(rates, "client 0", 0.0) == 0.0
