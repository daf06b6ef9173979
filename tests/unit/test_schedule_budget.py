"""The KV budget: rows x longest, copies included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.schedule.budget import KvBudget

LENGTHS = st.lists(st.integers(1, 10_000), max_size=20)


def test_rows_are_padded_to_the_longest() -> None:
    """Three rows cost three times the longest, not their sum, and twice that for the copy."""
    assert KvBudget(10**9, 10).needed_bytes([100, 20, 30]) == 2 * 3 * 100 * 10


def test_no_rows_need_nothing() -> None:
    """An empty batch has no cache."""
    assert KvBudget(1000, 10).needed_bytes([]) == 0


def test_a_row_fits_up_to_the_last_byte() -> None:
    """The budget itself may be used, one byte more not."""
    assert KvBudget(4000, 10).fits([100], 100)
    assert not KvBudget(3999, 10).fits([100], 100)


def test_one_long_row_makes_the_short_ones_dear() -> None:
    """A candidate is judged by what the whole batch would be padded to."""
    budget = KvBudget(2 * 4 * 50 * 10, 10)
    assert budget.fits([50, 50, 50], 50)
    assert not budget.fits([50, 50, 50], 51)


def test_what_does_not_fit_alone_never_fits() -> None:
    """can_ever_fit looks at a batch of one."""
    budget = KvBudget(2000, 10)
    assert budget.can_ever_fit(100)
    assert not budget.can_ever_fit(101)


@pytest.mark.parametrize("budget", [KvBudget(0, 10), KvBudget(1, 0)])
def test_unknown_means_no_limit(budget: KvBudget) -> None:
    """No total, or a model of unknown cost, refuses nothing."""
    assert budget.unlimited
    assert budget.can_ever_fit(10**12)
    assert budget.fits([10**12] * 100, 10**12)


def test_the_total_can_change() -> None:
    """with_total keeps everything else."""
    assert KvBudget(1, 2, 3.0).with_total(9) == KvBudget(9, 2, 3.0)


@pytest.mark.parametrize("numbers", [(-1, 1, 2.0), (1, -1, 2.0), (1, 1, 0.5), (1, 1, float("nan"))])
def test_nonsense_is_refused(numbers: tuple[int, int, float]) -> None:
    """Negative bytes and a factor below 1 are mistakes."""
    with pytest.raises(ValueError, match="must be"):
        KvBudget(*numbers)


@given(LENGTHS, st.integers(1, 10_000), st.integers(1, 10**7))
def test_fits_is_what_the_batch_would_need(running: list[int], candidate: int, total: int) -> None:
    """fits agrees with needed_bytes of the batch that would come of it."""
    budget = KvBudget(total, 3)
    assert budget.fits(running, candidate) == (budget.needed_bytes([*running, candidate]) <= total)


@given(LENGTHS, st.integers(1, 10_000), st.integers(1, 10**7))
def test_whatever_fits_in_company_fits_alone(running: list[int], candidate: int, total: int) -> None:
    """Company only costs."""
    budget = KvBudget(total, 3)
    assert budget.can_ever_fit(candidate) or not budget.fits(running, candidate)
