"""Who has a place on a listener, and who has to leave for another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.http.wire.places import Phase, Places


class One:
    """A connection."""

    def __init__(self) -> None:
        self.ended = False

    def end(self) -> None:
        self.ended = True

    def check(self, now_seconds: float) -> None:
        """Nothing."""


def entered(places: Places, phase: Phase) -> One:
    one = One()
    places.enter(one)
    places.move(one, phase)
    return one


def test_the_least_leaves_first() -> None:
    """Silent before idle before sending before open; and in each the one that has been so for the longest."""
    places = Places(9)
    ones = [entered(places, phase) for phase in (*reversed(list(Phase)), Phase.SILENT, Phase.IDLE, Phase.SENDING)]
    _working, opened, sending, idle, silent, silent_later, idle_later, sending_later = ones
    order = [silent, silent_later, idle, idle_later, sending, sending_later, opened]
    for count in range(1, len(order) + 1):
        entered(places, Phase.WORKING)
        assert {one for one in ones if one.ended} == set(order[:count])


def test_who_works_stays() -> None:
    """However many there are; the newcomer is one too many."""
    places = Places(3)
    working = [entered(places, Phase.WORKING) for _ in range(5)]
    assert not any(one.ended for one in working)
    assert len(places) == 5


@given(st.lists(st.tuples(st.sampled_from(["enter", "move", "leave"]), st.integers(0, 20), st.sampled_from(Phase))))
def test_there_are_never_more_than_the_limit_unless_they_work(steps: list[tuple[str, int, Phase]]) -> None:
    """Whatever they do, and nobody that works is ended."""
    places, limit = Places(5), 5
    inside: dict[One, Phase] = {}
    for what, index, phase in steps:
        ones = list(inside)
        if what == "enter" or not ones:
            one = One()
            places.enter(one)
            inside[one] = Phase.SILENT
        elif what == "move":
            places.move(ones[index % len(ones)], phase)
            inside[ones[index % len(ones)]] = phase
        else:
            places.leave(ones[index % len(ones)])
            del inside[ones[index % len(ones)]]
        ended = [one for one in inside if one.ended]
        assert all(inside[one] is not Phase.WORKING for one in ended)
        for one in ended:
            del inside[one]
        assert len(places) == len(inside)
        silent = [one for one in inside if inside[one] is not Phase.WORKING]
        assert len(places) < limit or len(silent) <= limit
