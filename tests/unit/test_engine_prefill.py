"""How prompts share a step's prefill budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.engine.batch.prefill import chunk_tokens, rows_to_admit, tokens_for_scores

lengths = st.lists(st.integers(0, 5000), max_size=40)
remaining = st.lists(st.integers(1, 5000), min_size=1, max_size=40)
budgets = st.integers(32, 4096)


@given(in_prefill=lengths, waiting=lengths, budget=budgets)
def test_an_empty_prefill_always_admits_someone(in_prefill: list[int], waiting: list[int], budget: int) -> None:
    """No prompt can block the queue."""
    admitted = rows_to_admit(in_prefill, waiting, budget)
    assert 0 <= admitted <= len(waiting)
    if waiting and not in_prefill:
        assert admitted > 0


@given(remaining=remaining, budget=budgets)
def test_a_chunk_keeps_the_budget_and_always_goes_on(remaining: list[int], budget: int) -> None:
    """Rows x chunk is within the budget, unless one token a row is past it already."""
    chunk = chunk_tokens(remaining, budget)
    assert 1 <= chunk <= max(remaining)
    assert chunk * len(remaining) <= max(budget, len(remaining))


@pytest.mark.parametrize(
    ("waiting", "admitted"),
    [
        ([30] * 20, 8),  # 8 x 32 tokens
        ([4] * 100, 64),  # 64 x 4
        ([4000, 20, 20], 3),  # the short ones do not wait for the long one
        ([0] * 100, 100),  # prompts of one token cost no prefill
    ],
)
def test_prompts_are_admitted_by_what_they_cost(waiting: list[int], admitted: int) -> None:
    """With a budget of 256 tokens and nothing in prefill."""
    assert rows_to_admit([], waiting, 256) == admitted


@pytest.mark.parametrize(
    ("remaining", "chunk"),
    [
        ([4000], 256),
        ([30] * 8, 30),
        ([4000, 4000], 128),
        ([4, 4, 4, 4000], 4),  # 64 would be padding by two thirds; the long one has the next step alone
        ([60, 64, 64, 4000], 64),
    ],
)
def test_a_chunk_is_not_mostly_padding(remaining: list[int], chunk: int) -> None:
    """With a budget of 256 tokens."""
    assert chunk_tokens(remaining, 256) == chunk


def test_scores_of_long_contexts_bound_the_chunk() -> None:
    """32 heads in half precision and a context of 32,768 take 2 MiB a token: a GiB holds those of 512."""
    assert tokens_for_scores(32768, 32, 2**30) == 512
    assert tokens_for_scores(128, 32, 2**30) == 131072
    assert tokens_for_scores(10**9, 128, 1) == 1, "a prompt always moves on"
