"""Several clients in the queue: whose turn it is, what one client's backlog does to others, and what it costs."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import combinations, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlx_grpc.request import Priority
from mlx_grpc.schedule.depths import Depths
from mlx_grpc.schedule.entry import Entry
from mlx_grpc.schedule.queue import WaitingQueue
from tests.unit.test_schedule_queue import keys, lines_run

HIGH, NORMAL, LOW = Priority
AGEING_SECONDS = 10.0


def entry(key: int, client: str, priority: Priority = NORMAL) -> Entry:
    return Entry(key, priority, 10, 20, 0.0, client=client)


def queue_of(*entries: Entry, now: float = 0.0) -> WaitingQueue:
    queue = WaitingQueue(AGEING_SECONDS)
    for one in entries:
        queue.push(one, now)
    return queue


def served(queue: WaitingQueue, now: float = 0.0, seconds_each: float = 0.0) -> list[int]:
    """The keys in the order in which they run, one after another."""
    order = []
    while (head := queue.head()) is not None:
        order.append(head.key)
        queue.take(head.key, now)
        now += seconds_each
    return order


def backlog(client: str, count: int, priority: Priority = NORMAL) -> list[Entry]:
    return [entry(key, client, priority) for key in range(count)]


def test_clients_are_served_in_turn() -> None:
    """One client's thousand requests do not stand before another's first."""
    queue = queue_of(*backlog("ann", 1000))
    assert queue.push(entry(-1, "ben"), 1.0) == 1
    assert keys(queue)[:3] == [0, -1, 1]


def test_within_a_client_the_first_that_came_goes_first() -> None:
    """Turns change nothing among one client's own."""
    queue = queue_of(entry(3, "ann"), entry(1, "ann"), entry(2, "ben"), entry(4, "ann"))
    assert served(queue) == [3, 2, 1, 4]


@pytest.mark.parametrize("waited_seconds", [15.0, 50.0, 5000.0])
def test_a_backlog_that_aged_is_not_before_others(waited_seconds: float) -> None:
    """However long one client's requests have waited because of each other, a new client is second."""
    queue = queue_of(*backlog("ann", 100))
    for key in range(10):
        queue.push(entry(100 + key, "ann"), 1.0 + key)  # so that ageing is done
        queue.take(key, 1.0 + key)
    queue.push(entry(500, "ann"), waited_seconds)
    queue.take(10, waited_seconds)
    queue.push(entry(-1, "ben"), waited_seconds + 1.0)
    assert keys(queue).index(-1) == 1


def test_better_classes_of_others_go_first() -> None:
    """HIGH of one client is before NORMAL of another, whoever had the last turn."""
    queue = queue_of(entry(1, "ann", NORMAL), entry(2, "ben", HIGH), entry(3, "ben", HIGH))
    assert served(queue) == [2, 3, 1]


def test_low_ends_under_any_load_of_high_from_others() -> None:
    """After two periods the client has a turn, whatever others send and have sent."""
    queue = queue_of(*backlog("ann", 500, HIGH), entry(-1, "ben", LOW))
    for second in range(1000):
        queue.push(entry(1000 + second, "ann", HIGH), float(second))
        head = queue.head()
        assert head is not None
        queue.take(head.key, float(second))
        if head.key == -1:
            break
    assert second == 2 * AGEING_SECONDS + 1


def test_a_clients_own_order_is_as_if_it_were_alone() -> None:
    """Its HIGH are before its NORMAL, and its turn comes as early as its best."""
    queue = queue_of(entry(1, "ann"), entry(2, "ben"), entry(3, "ann", HIGH))
    assert served(queue) == [3, 2, 1]


def test_a_turn_that_was_not_used_is_not_saved() -> None:
    """A client that comes back has waited since it came back, not since its last turn."""
    queue = queue_of(*backlog("ann", 3))
    queue.push(entry(10, "ben"), 1.0)
    queue.remove(10)
    queue.take(0, 50.0)
    queue.push(entry(11, "ben"), 60.0)
    queue.push(entry(12, "ben"), 60.0)
    assert served(queue, 70.0) == [1, 11, 2, 12]


def test_the_resumed_are_nobodys_turn() -> None:
    """They run before all, and their client still has the turn that it waited for."""
    queue = queue_of(entry(1, "ann"), entry(2, "ann"), entry(3, "ben"))
    queue.push_front([entry(4, "ann"), entry(5, "ann")])
    assert served(queue) == [4, 5, 1, 3, 2]


def test_clients_that_are_full_are_passed_over() -> None:
    """Also when they become so while the order is read."""
    queue = queue_of(*backlog("ann", 1000), entry(-1, "ben"), entry(-2, "ben"))
    full: set[str] = set()
    order = queue.order(0.0, full)
    assert next(order).key == 0
    full.add("ann")
    assert [one.key for one in order] == [-1, -2]


ARRIVALS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(Priority), st.floats(0, 8), st.integers(0, 3)), max_size=50
)


@given(ARRIVALS, st.floats(0, 30))
def test_the_order_that_is_read_is_the_order_that_is_served(arrivals: list[Any], later: float) -> None:
    """Whatever came, ran and left before: reading says in which order all would run now, and changes nothing."""
    queue, now = WaitingQueue(AGEING_SECONDS), 0.0
    for key, (client, priority, pause, action) in enumerate(arrivals):
        now += pause
        queue.push(entry(key, client, priority), now)
        if action == 1 and (head := queue.head()) is not None:
            queue.take(head.key, now)
        elif action == 2:
            queue.remove(keys(queue)[len(queue) // 2])
        elif action == 3:
            queue.push_front([entry(1000 + key, client, priority)])
    now += later
    expected = [one.key for one in queue.order(now)]
    assert expected == [one.key for one in queue.order(now)]
    assert served(queue, now) == expected


@given(st.lists(st.tuples(st.sampled_from(Priority), st.floats(0, 8), st.booleans()), max_size=50))
def test_clients_with_one_request_each_are_served_as_requests(arrivals: list[tuple[Priority, float, bool]]) -> None:
    """They run in order of the moment at which each would be HIGH, as one client's own do."""
    queue, now, would_be_high = WaitingQueue(5.0), 0.0, dict[int, float]()
    for key, (priority, pause, leave) in enumerate(arrivals):
        now += pause
        queue.push(entry(key, f"client {key}", priority), now)
        would_be_high[key] = now + 5.0 * priority
        if leave:
            queue.remove(keys(queue)[len(queue) // 2])
    moments = [would_be_high[key] for key in served(queue, now)]
    assert moments == pytest.approx(sorted(moments))


class FairMachine(RuleBasedStateMachine):
    """Clients come, wait, are served and leave in any order; all of one class."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = WaitingQueue(AGEING_SECONDS)
        self.now = 0.0
        self.next_key = 0
        self.waiting: Counter[str] = Counter()
        self.turns: dict[tuple[str, str], list[int]] = {}
        """For each two that wait: how many turns each has had since both do."""

    def count(self, client: str, step: int) -> None:
        self.waiting[client] += step
        present = sorted(name for name, count in self.waiting.items() if count)
        self.turns = {pair: self.turns.get(pair, [0, 0]) for pair in combinations(present, 2)}

    @rule(client=st.sampled_from("abcde"), count=st.integers(1, 6), pause=st.floats(0, 15))
    def comes(self, client: str, count: int, pause: float) -> None:
        self.now += pause
        for _ in range(count):
            self.next_key += 1
            self.queue.push(entry(self.next_key, client), self.now)
            self.count(client, 1)

    @precondition(lambda self: len(self.queue) > 0)
    @rule(pause=st.floats(0, 15))
    def is_served(self, pause: float) -> None:
        self.now += pause
        head = self.queue.head()
        assert head is not None
        self.queue.take(head.key, self.now)
        for pair, turns in self.turns.items():
            if head.client in pair:
                turns[pair.index(head.client)] += 1
                assert abs(turns[0] - turns[1]) <= 1, f"{pair} have had {turns} turns"
        self.count(head.client, -1)

    @precondition(lambda self: len(self.queue) > 0)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        gone = self.queue.remove(data.draw(st.sampled_from(keys(self.queue))))
        assert gone is not None
        self.count(gone.client, -1)

    @invariant()
    def books_agree(self) -> None:
        assert {client: self.queue.held_by(client)[0] for client in self.queue.clients} == +self.waiting
        assert len(keys(self.queue)) == len(self.queue) == self.waiting.total()


TestFairness = FairMachine.TestCase


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=120), st.sampled_from("abcx"))
def test_the_position_is_about_that_of_the_turns(arrivals: list[tuple[str, bool]], client: str) -> None:
    """Exact for a client's first and for a client alone; else as good as its buckets."""
    queue = WaitingQueue(1e6)
    for key, (name, leave) in enumerate(arrivals):
        queue.push(entry(key, name), float(key))
        if leave:
            queue.remove(keys(queue)[len(queue) // 2])
    mine = queue.held_by(client)[0]
    others = Counter({name: queue.held_by(name)[0] for name in queue.clients if name != client})
    exact = mine + sum(min(count, mine + 1) for count in others.values())
    position = queue.tail_position(NORMAL, 1000.0, client)
    if not mine or not others:
        assert position == exact
    first = 1 << (mine + 1).bit_length() - 1
    least = mine + sum(min(count, first - 1) for count in others.values())
    most = mine + sum(min(count, 2 * first - 1) for count in others.values())
    assert least <= position <= most


@given(st.lists(st.integers(0, 70), min_size=1, max_size=8), st.integers(1, 80))
def test_depths_agree_with_their_rule(lengths: list[int], turns: int) -> None:
    """Never more than there are, never fewer than before, and exact at the ends of buckets."""
    depths = Depths()
    for length in lengths:
        for depth in range(1, length + 1):
            depths.add(depth)
    mine = lengths[0]
    counted = [depths.of_others(number, mine) for number in (turns, turns + 1)]
    assert 0 <= counted[0] <= counted[1] <= sum(lengths[1:]) == len(depths) - mine
    last = (1 << turns.bit_length()) - 1
    assert depths.of_others(last, mine) == sum(min(length, last) for length in lengths[1:])
    for depth in range(lengths[0], 0, -1):
        depths.discard(depth)
    assert depths.of_others(last, 0) == sum(min(length, last) for length in lengths[1:])


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(lambda queue: queue.push(entry(-1, "new", HIGH), 1.0), id="a client comes"),
        pytest.param(lambda queue: queue.push(entry(-1, "0", HIGH), 1.0), id="a client's class changes"),
        pytest.param(lambda queue: queue.take(queue.head().key, 1.0), id="a turn"),
        pytest.param(lambda queue: queue.remove(50), id="a request leaves"),
        pytest.param(lambda queue: queue.tail_position(NORMAL, 1.0, "new"), id="position"),
        pytest.param(lambda queue: list(islice(queue.order(1.0), 5)), id="the first of the order"),
    ],
)
def test_an_operation_costs_the_same_with_many_clients(action: Any) -> None:
    """With 10,000 clients of two requests each, as many lines are run as with 100."""
    costs = []
    for size in (100, 10_000):
        queue = queue_of(*(entry(key, str(key % size)) for key in range(2 * size)))
        costs.append(lines_run(partial(action, queue)))
    assert costs[0] == costs[1]


def test_places_that_are_stale_are_cleared() -> None:
    """A client whose class changes a thousand times leaves no trace in the heap of turns."""
    queue = queue_of(entry(0, "ann"), entry(1, "ben"))
    for key in range(2, 2002):
        queue.push(entry(key, "ann", HIGH), 1.0)
        queue.remove(key)
    assert lines_run(lambda: list(queue.order(1.0))) < 3000
    assert served(queue) == [0, 1]
