"""The prefill of a step adapts to what running streams may be held up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.engine.pace import MIN_TOKENS, PrefillPace


def test_with_nobody_decoding_a_step_takes_all_it_may() -> None:
    """Nobody waits, so the longest chunk is the quickest."""
    pace = PrefillPace(0.1, 2048)
    pace.record(2048, 10.0)
    assert pace.budget_tokens(decoding_rows=0) == 2048


def test_the_chunk_takes_as_long_as_the_target() -> None:
    """5,000 tokens a second and a tenth of a second are 500 tokens."""
    pace = PrefillPace(0.1, 2048)
    for _ in range(20):
        pace.record(1000, 0.2)
    assert pace.budget_tokens(decoding_rows=3) == 500


def test_a_slow_machine_still_moves_on() -> None:
    """Never below the chunk that takes about as long as a smaller one."""
    pace = PrefillPace(0.1, 2048)
    pace.record(256, 60.0)
    assert pace.budget_tokens(decoding_rows=1) == MIN_TOKENS


def test_small_chunks_do_not_change_the_rate() -> None:
    """The last few tokens of a prompt cost a whole step, and would make every later chunk small."""
    pace = PrefillPace(0.1, 2048)
    pace.record(1000, 0.1)
    before = pace.budget_tokens(decoding_rows=1)
    pace.record(3, 0.1)
    assert pace.budget_tokens(decoding_rows=1) == before


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 100))), st.integers(1, 4096), st.integers(0, 64))
def test_the_budget_is_always_usable(samples: list[tuple[int, float]], most: int, rows: int) -> None:
    """Whatever was measured: at least one token, at most the most or the smallest useful chunk."""
    pace = PrefillPace(0.1, most)
    for tokens, seconds in samples:
        pace.record(tokens, seconds)
    assert 1 <= pace.budget_tokens(rows) <= max(most, 1)
