"""The account of bytes taken in: what it refuses, whom it cuts off, and that it always adds up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.bounds.intake import Holding, Intake
from mlx_grpc.errors import IntakeFull


def opened(intake: Intake, connection: str, held_bytes: int, cut: list[str] | None = None, name: str = "") -> Holding:
    holding = intake.open(connection, lambda: (cut if cut is not None else []).append(name))
    holding.grow(held_bytes)
    return holding


def test_a_connection_has_a_bound_of_its_own() -> None:
    """Over it the newcomer is refused with a time to wait, and keeps what it had."""
    intake = Intake(100, 40)
    first = opened(intake, "a", 40)
    second = intake.open("a", lambda: None)
    with pytest.raises(IntakeFull) as caught:
        second.grow(1)
    assert (caught.value.retry_after_seconds or 0) > 0
    assert (second.bytes, first.bytes, intake.held_bytes) == (0, 40, 40)
    opened(intake, "b", 40)


def test_what_still_arrives_gives_way_to_others() -> None:
    """The oldest of the connection that holds the most, and it is told so once."""
    intake = Intake(100, 90)
    cut: list[str] = []
    opened(intake, "small", 10, cut, "small")
    opened(intake, "large", 40, cut, "first")
    opened(intake, "large", 40, cut, "second")
    opened(intake, "new", 30, cut, "new")
    assert cut == ["first"]
    assert intake.held_bytes == 80


def test_whoever_holds_the_most_is_refused_itself() -> None:
    """It cannot push out those that hold less."""
    intake = Intake(100, 90)
    cut: list[str] = []
    opened(intake, "small", 20, cut, "small")
    large = opened(intake, "large", 80, cut, "large")
    with pytest.raises(IntakeFull):
        large.grow(1)
    assert cut == []


def test_what_has_arrived_is_not_cut_off() -> None:
    """It is being answered: the newcomer waits instead."""
    intake = Intake(100, 100)
    cut: list[str] = []
    opened(intake, "a", 100, cut, "a").arrived()
    with pytest.raises(IntakeFull):
        opened(intake, "b", 1, cut, "b")
    assert cut == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, 7), st.sampled_from(["grow", "arrive", "close"]), st.integers(0, 40)
        ),
        max_size=60,
    )
)
def test_it_always_adds_up(steps: list[tuple[str, int, str, int]]) -> None:
    """The total is what the open holdings have, it never passes its bound, and nothing is left when all are closed."""
    intake = Intake(100, 60)
    cut: list[int] = []
    holdings: dict[tuple[str, int], Holding] = {}
    for connection, number, step, more_bytes in steps:
        holding = holdings.setdefault((connection, number), intake.open(connection, lambda: cut.append(1)))
        if step == "arrive":
            holding.arrived()
        elif step == "close":
            holding.close()
        else:
            try:
                holding.grow(more_bytes)
            except IntakeFull:
                assert intake.refused_count
        live = [one for one in holdings.values() if not one.closed]
        assert intake.held_bytes == sum(one.bytes for one in live) <= 100
        for name in "abc":
            assert sum(one.bytes for one in live if one.connection == name) <= 60
    assert len(cut) == intake.cut_off_count
    for holding in holdings.values():
        holding.close()
    assert intake.held_bytes == 0
    assert not intake._connections
