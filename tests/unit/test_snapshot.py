"""The snapshot's own arithmetic."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.observe.histogram import BOUNDS_SECONDS, Histogram
from mlx_grpc.observe.process import resident_bytes
from mlx_grpc.observe.snapshot import Quantiles

SECONDS = st.lists(st.floats(0, 1000), min_size=1, max_size=300)


def test_quantiles_of_nothing_are_unknown() -> None:
    """Not zero, which would be a very fast server."""
    assert Quantiles.of([]) == Quantiles(None, None, None)


def test_quantiles_are_nearest_ranks() -> None:
    """Of 1 to 101 the middle is 51, and nine of ten are at most 91."""
    assert Quantiles.of([float(value) for value in range(101, 0, -1)]) == Quantiles(51.0, 91.0, 100.0)


@given(SECONDS)
def test_quantiles_are_values_that_were_measured(values: list[float]) -> None:
    """In order, and none of them made up."""
    found = Quantiles.of(values)
    assert {found.p50, found.p90, found.p99} <= set(values)
    assert found.p50 is not None
    assert found.p90 is not None
    assert found.p99 is not None
    assert found.p50 <= found.p90 <= found.p99


@given(SECONDS)
def test_a_histogram_counts_what_is_at_most_its_bound(values: list[float]) -> None:
    """Cumulative, as Prometheus wants it; the last bucket has all."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    expected = [float(sum(value <= bound for value in values)) for bound in BOUNDS_SECONDS]
    assert [count for _, count in histogram.buckets()] == [*expected, float(len(values))]
    assert histogram.buckets()[-1][0] == "+Inf"


def test_a_process_that_is_not_there_has_no_memory() -> None:
    """None, not 0; and this process has some where the system tells."""
    assert resident_bytes(None) is None
    assert resident_bytes(2**22 + 1) is None
    own = resident_bytes(os.getpid())
    assert own is None or own > 1_000_000
