"""The prefill of a step adapts to what running streams may be held up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.engine.batch.pace import MIN_TOKENS, PrefillPace, Rate

TARGET_SECONDS = 0.1
CHUNK_SECONDS = 2.0


def settle(seconds_for: Callable[[int], float], max_tokens: int = 8192) -> int:
    """The budget that a machine comes to, where so many tokens take so long."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, max_tokens)
    for _ in range(40):
        tokens = pace.budget_tokens(decoding_rows=1)
        pace.record(tokens, seconds_for(tokens))
    return pace.budget_tokens(decoding_rows=1)


def test_with_nobody_decoding_a_step_takes_all_it_may() -> None:
    """Nobody waits for a token, so the longest chunk is the quickest, up to the seconds that a step may last."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 2048)
    pace.record(2048, CHUNK_SECONDS)
    assert pace.budget_tokens(decoding_rows=0) == 2048
    pace.record(2048, 10.0)
    assert pace.budget_tokens(decoding_rows=0) == 1024


@given(st.floats(1e-4, 3.0))
def test_a_chunk_is_bounded_by_seconds_at_any_speed(seconds_per_token: float) -> None:
    """Where the rate was measured, the first chunk takes no longer than it may, and no later one does. One token takes
    what it takes."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 2048, Rate(0.0, seconds_per_token))
    for _ in range(20):
        tokens = pace.budget_tokens(decoding_rows=0)
        assert tokens == 1 or tokens * seconds_per_token <= CHUNK_SECONDS * 1.01
        pace.record(tokens, tokens * seconds_per_token)


def test_a_machine_that_slows_down_gets_smaller_chunks() -> None:
    """It was measured at a thousand tokens a second, and makes two."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 2048, Rate(0.0, 0.001))
    for _ in range(20):
        tokens = pace.budget_tokens(decoding_rows=0)
        pace.record(tokens, 0.5 * tokens)
    assert pace.budget_tokens(decoding_rows=0) == 4


def test_what_a_step_may_take_is_known_before() -> None:
    """From the slowest of the last steps, and no more than a chunk is to take; nothing before one was measured."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 2048)
    assert pace.expected_seconds(100) == 0.0
    pace.record(100, 1.0)
    assert pace.expected_seconds(150) == pytest.approx(1.5)
    assert pace.expected_seconds(1000) == CHUNK_SECONDS
    pace.record(100, 0.1)
    assert pace.expected_seconds(150) == pytest.approx(0.75)


def test_a_device_that_is_slow_whatever_it_is_given_is_given_time() -> None:
    """A minute for one token is a minute for the next."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 2048, Rate(60.0, 0.01))
    assert pace.expected_seconds(1) == 60.0


def test_on_a_cpu_the_chunk_takes_as_long_as_the_target() -> None:
    """2,000 tokens a second and a tenth of a second are 200 tokens."""
    assert settle(lambda tokens: tokens / 2000) == pytest.approx(200, rel=0.05)


def test_on_a_gpu_a_chunk_that_costs_its_launch_alone_stays_large() -> None:
    """20 ms whatever the size: nothing is gained by cutting it up."""
    assert settle(lambda tokens: 0.02 + tokens / 1_000_000) == 8192


def test_a_slow_machine_still_moves_on() -> None:
    """A chunk is not made smaller where the smaller one takes as long."""
    assert settle(lambda tokens: 60.0) == MIN_TOKENS


def test_one_slow_step_is_not_believed_whole_and_is_forgotten() -> None:
    """A step that compiled its kernels halves the budget at most; the next good ones bring it back."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 4096)
    pace.record(4096, 5.0)
    assert pace.budget_tokens(decoding_rows=1) == 2048
    pace.record(2048, 0.02)
    assert pace.budget_tokens(decoding_rows=1) == 4096


def test_the_end_of_a_prompt_does_not_make_later_chunks_small() -> None:
    """A few tokens, quickly done, say nothing against many."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 2048)
    pace.record(3, 0.05)
    assert pace.budget_tokens(decoding_rows=1) == 2048


def test_a_crowd_that_waits_for_its_first_tokens_may_hold_up_the_few_that_run() -> None:
    """A step costs about the same for few rows as for many, so all are served sooner; up to four targets long."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, 8192)
    for _ in range(40):
        pace.record(pace.budget_tokens(decoding_rows=8, waiting_rows=24), 0.001 * pace.budget_tokens(8, 24))
    assert pace.budget_tokens(decoding_rows=8, waiting_rows=24) == pytest.approx(400, rel=0.05)
    assert pace.budget_tokens(decoding_rows=8, waiting_rows=4) == pytest.approx(150, rel=0.05)
    assert pace.budget_tokens(decoding_rows=8, waiting_rows=1) == pytest.approx(100, rel=0.05), "a lone giant"


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 100))), st.integers(1, 4096), st.integers(0, 64))
def test_the_budget_is_always_usable(samples: list[tuple[int, float]], most: int, rows: int) -> None:
    """Whatever was measured: at least one token, and no more than a step may take."""
    pace = PrefillPace(TARGET_SECONDS, CHUNK_SECONDS, most)
    for tokens, seconds in samples:
        pace.record(tokens, seconds)
    assert 1 <= pace.budget_tokens(rows) <= most
