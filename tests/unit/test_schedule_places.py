"""Who finds a place when the queue is full, or nearly so, and several clients want one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.errors import QueueFull, RateLimited
from mlx_grpc.request import Priority
from mlx_grpc.schedule.places import RESERVED
from mlx_grpc.schedule.scheduler import Entry, Limits, Scheduler

HIGH, NORMAL, LOW = Priority


class Crowd:
    """Clients before a queue whose engine has one row, which is taken."""

    def __init__(self, max_waiting: int, tokens: int | None = None, **limits: int) -> None:
        self.scheduler = Scheduler(Limits(max_waiting, tokens, 1, **limits))
        self.next_key = 0
        assert self.asks("somebody")
        self.step()

    def step(self) -> tuple[int, ...]:
        plan = self.scheduler.plan(0.0)
        self.scheduler.apply(plan, 0.0)
        return plan.admit

    def row_ends(self, key: int) -> None:
        self.scheduler.ledger.finished(key, 0.0)

    def asks(self, client: str, prompt: int = 10, priority: Priority = NORMAL) -> bool:
        """Whether it found a place."""
        self.next_key += 1
        try:
            self.scheduler.check_place(client)
            self.scheduler.submit(Entry(self.next_key, priority, prompt, prompt + 1, 0.0, client=client), 0.0)
        except QueueFull:
            return False
        return True

    def fills(self, client: str) -> int:
        """How many places it found in a row."""
        count = 0
        while self.asks(client):
            count += 1
        return count


@pytest.mark.parametrize("max_waiting", [0, 1, 2, 8, 32, 256])
def test_a_client_alone_has_the_whole_queue(max_waiting: int) -> None:
    """No place is kept for others who are not there."""
    assert Crowd(max_waiting).fills("ann") == max_waiting


@pytest.mark.parametrize("max_waiting", [1, 2, 8, 32, 256])
def test_a_full_queue_of_one_client_takes_anothers_first(max_waiting: int) -> None:
    """And nobody who was accepted loses a place; the second has to wait as everybody does."""
    crowd = Crowd(max_waiting)
    crowd.fills("ann")
    assert crowd.asks("ben")
    assert not crowd.asks("ben")
    assert not crowd.asks("ann")
    assert crowd.scheduler.ledger.waiting == max_waiting + 1


def test_first_requests_have_a_bounded_reserve() -> None:
    """A thousand clients with one request each find an eighth of the queue above it, and no more."""
    crowd = Crowd(32)
    crowd.fills("ann")
    assert sum(crowd.asks(f"client {number}") for number in range(1000)) == 32 // RESERVED


def test_a_queue_of_no_places_has_no_reserve() -> None:
    """With --max-queue 0 nobody waits."""
    assert not Crowd(0).asks("ben")


def test_whoever_has_more_than_its_share_is_refused_first() -> None:
    """Places that become free go to the client with few, until one in eight is free."""
    crowd = Crowd(32)
    crowd.fills("ann")
    assert crowd.asks("ben")
    ended, found = 1, Counter[str]()
    for _ in range(6):
        crowd.row_ends(ended)
        (ended,) = crowd.step()
        found["ben"] += crowd.asks("ben")
        found["ann"] += crowd.asks("ann")
    assert found["ann"] == 0
    assert found["ben"] >= 4


def test_tokens_have_a_reserve_as_well() -> None:
    """A queue that is full of one client's long prompts takes a short one of another."""
    crowd = Crowd(1000, tokens=800)
    for _ in range(8):
        assert crowd.asks("ann", prompt=100)
    assert not crowd.asks("ann", prompt=1)
    assert crowd.asks("ben", prompt=100)
    assert not crowd.asks("cleo", prompt=1)


def test_one_that_runs_at_once_needs_no_place() -> None:
    """Also of a client that has more than its share."""
    crowd = Crowd(2)
    crowd.fills("ann")
    assert crowd.asks("ben")
    crowd.row_ends(1)
    assert crowd.asks("ann", priority=HIGH)
    assert not crowd.asks("ann")


def test_a_clients_waiting_places_can_be_limited() -> None:
    """The one too many is told that it is the client's own limit, and when to come again."""
    crowd = Crowd(100, max_client_waiting=3)
    assert [crowd.asks("ann") for _ in range(3)] == [True] * 3
    for ask in (lambda: crowd.scheduler.check_place("ann"), lambda: crowd.asks("ann")):
        with pytest.raises(RateLimited, match="this client has 3 requests waiting") as refused:
            ask()
        assert refused.value.metadata == {"limit": "client_waiting"}
        assert (refused.value.retry_after_seconds or 0) > 0
    assert crowd.asks("ben")


def test_a_client_that_may_not_wait_still_runs() -> None:
    """With no waiting places it gets a row that is free."""
    crowd = Crowd(100, max_client_waiting=0)
    with pytest.raises(RateLimited):
        crowd.asks("ann")
    crowd.row_ends(1)
    assert crowd.asks("ann")


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=150),
)
def test_a_newcomer_is_refused_only_when_the_reserve_is_taken(limit: int, asking: list[tuple[str, bool]]) -> None:
    """Whoever came before: a client with nothing waiting finds a place while fewer than queue and reserve wait; and
    no more than these ever do."""
    crowd, reserve = Crowd(limit), -(-limit // RESERVED)
    running = 1
    for client, ends in asking:
        queue = crowd.scheduler.ledger.queue
        is_new, waiting, alone = not queue.held_by(client)[0], len(queue), not set(queue.clients) - {client}
        accepted = crowd.asks(client)
        if is_new and waiting < limit + reserve:
            assert accepted
        if alone:
            assert accepted == (waiting < limit)
        assert len(queue) <= limit + reserve
        if ends and len(queue):
            crowd.row_ends(running)
            (running,) = crowd.step()
