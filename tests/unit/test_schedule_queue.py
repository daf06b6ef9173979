"""The waiting queue: classes, ageing, limits' counts, and what an operation costs; and the deadline heap."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.request import Priority
from mlx_grpc.schedule.deadlines import DeadlineHeap
from mlx_grpc.schedule.entry import Entry
from mlx_grpc.schedule.queue import WaitingQueue

HIGH, NORMAL, LOW = Priority


def entry(key: int, priority: Priority = NORMAL, prompt_tokens: int = 10) -> Entry:
    return Entry(key, priority, prompt_tokens, prompt_tokens + 10, 0.0)


def queue_of(*entries: Entry, ageing_seconds: float = 10.0) -> WaitingQueue:
    queue = WaitingQueue(ageing_seconds)
    for one in entries:
        queue.push(one, 0.0)
    return queue


def keys(queue: WaitingQueue) -> list[int]:
    return [one.key for one in queue]


def test_first_come_first_served_within_a_class() -> None:
    """Equal priority runs in order of arrival."""
    assert keys(queue_of(entry(3), entry(1), entry(2))) == [3, 1, 2]


def test_better_classes_run_first() -> None:
    """HIGH before NORMAL before LOW, whenever they came."""
    assert keys(queue_of(entry(1, LOW), entry(2, NORMAL), entry(3, HIGH))) == [3, 2, 1]


def test_waiting_gains_a_class() -> None:
    """A LOW entry that waited one ageing period is before a NORMAL one that comes then."""
    queue = queue_of(entry(1, LOW))
    queue.push(entry(2, NORMAL), 9.9)
    queue.push(entry(3, NORMAL), 10.0)
    assert keys(queue) == [2, 1, 3]


def test_low_becomes_high_in_two_periods() -> None:
    """After twice the period a LOW entry is before every new HIGH one, also when nothing came in between."""
    queue = queue_of(entry(1, LOW))
    queue.push(entry(2, HIGH), 20.0)
    assert keys(queue) == [1, 2]


def test_a_crash_puts_before_all() -> None:
    """The resumed are before HIGH, in the order given."""
    queue = queue_of(entry(1, HIGH))
    queue.push_front([entry(2, LOW), entry(3, NORMAL)])
    assert keys(queue) == [2, 3, 1]


def test_a_second_crash_puts_before_the_first() -> None:
    """Those of the last crash had been admitted before those that still wait from the one before."""
    queue = queue_of()
    queue.push_front([entry(3), entry(4)])
    queue.push_front([entry(1), entry(2)])
    assert keys(queue) == [1, 2, 3, 4]


def test_position_counts_those_before() -> None:
    """The position is the entry's own index, the resumed included."""
    queue = queue_of(entry(1, LOW), entry(2, HIGH))
    queue.push_front([entry(3)])
    assert queue.push(entry(4, NORMAL), 0.0) == keys(queue).index(4) == 2


def test_removal_by_key() -> None:
    """An entry leaves from anywhere; one that is not there gives None."""
    queue = queue_of(entry(1), entry(2), entry(3))
    assert queue.remove(2) == entry(2)
    assert queue.remove(2) is None
    assert keys(queue) == [1, 3]


def test_a_key_waits_once() -> None:
    """The same key twice is a mistake."""
    queue = queue_of(entry(1))
    with pytest.raises(ValueError, match="request 1 waits already"):
        queue.push(entry(1), 0.0)
    with pytest.raises(ValueError, match="request 1 waits already"):
        queue.push_front([entry(1)])


def test_the_resumed_do_not_count_against_limits() -> None:
    """All counts include them, the limited ones do not."""
    queue = queue_of(entry(1, prompt_tokens=10))
    queue.push_front([entry(2, prompt_tokens=5)])
    assert (len(queue), queue.tokens) == (2, 15)
    assert (queue.limited_count, queue.limited_tokens) == (1, 10)
    assert (queue.is_limited(1), queue.is_limited(2), queue.is_limited(3)) == (True, False, False)


@given(st.lists(st.tuples(st.sampled_from(Priority), st.floats(0, 8), st.integers(1, 50), st.booleans()), max_size=60))
def test_the_queue_agrees_with_its_rule(arrivals: list[tuple[Priority, float, int, bool]]) -> None:
    """Whatever comes and goes: they run in order of the moment each would be HIGH; all counts are right."""
    queue, now, would_be_high = WaitingQueue(5.0), 0.0, dict[int, float]()
    entries: dict[int, Entry] = {}
    for key, (priority, pause, tokens, leave) in enumerate(arrivals):
        now += pause
        entries[key] = entry(key, priority, tokens)
        position = queue.push(entries[key], now)
        would_be_high[key] = now + 5.0 * priority
        assert position == keys(queue).index(key)
        if leave:
            gone = keys(queue)[len(queue) // 2]
            assert queue.remove(gone) == entries.pop(gone)
    moments = [would_be_high[key] for key in keys(queue)]
    assert moments == pytest.approx(sorted(moments))
    assert queue.tokens == queue.limited_tokens == sum(one.prompt_tokens for one in entries.values())
    assert queue.counts == {p: sum(one.priority is p for one in entries.values()) for p in Priority}
    for priority in Priority:
        same = [key for key in keys(queue) if entries[key].priority is priority]
        assert same == sorted(same)


def lines_run(action: Callable[[], object]) -> int:
    """How many lines of Python `action` runs: operations, whatever else the machine does."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(lambda queue: queue.push(entry(-1, HIGH), 1.0), id="push"),
        pytest.param(lambda queue: queue.push(entry(-1, HIGH), 1e9), id="push, all due to age"),
        pytest.param(lambda queue: queue.push_front([entry(-1)]), id="push_front"),
        pytest.param(lambda queue: queue.remove(50), id="remove"),
        pytest.param(lambda queue: queue.head(), id="head"),
        pytest.param(lambda queue: (queue.tokens, queue.counts, queue.limited_count), id="counts"),
    ],
)
def test_an_operation_costs_the_same_in_a_long_queue(action: Callable[[WaitingQueue], object]) -> None:
    """With 10,000 waiting, each operation runs as many lines as with 100."""
    costs = []
    for size in (100, 10_000):
        queue = queue_of(*(entry(key, LOW) for key in range(size)))
        costs.append(lines_run(partial(action, queue)))
    assert costs[0] == costs[1]


def test_ageing_catches_up() -> None:
    """More may be due at once than one call moves; the calls after it move the rest, in order."""
    queue = queue_of(*(entry(key, LOW) for key in range(100)))
    for key in range(100, 120):
        queue.push(entry(key, HIGH), 1000.0)
    assert queue.push(entry(120, HIGH), 1000.0) == 120
    assert [key for key in keys(queue) if key < 100] == list(range(100))


def test_deadlines_come_due_in_order() -> None:
    """Those whose moment is here, earliest first, and the next one after them."""
    heap = DeadlineHeap()
    for key, deadline in enumerate([5.0, 3.0, 9.0, 4.0]):
        heap.add(key, deadline)
    assert heap.due(5.0) == ((1, 3, 0), 9.0)
    assert heap.due(5.0) == ((1, 3, 0), 9.0), "asking changes nothing"


def test_no_deadline_is_never_due() -> None:
    """An empty heap has nothing due and no next moment."""
    assert DeadlineHeap().due(1e12) == ((), None)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20), st.booleans()), max_size=300),
    st.integers(0, 20),
)
def test_the_heap_agrees_with_a_dictionary(actions: list[tuple[int, int, bool]], now: int) -> None:
    """Adding, replacing and discarding in any order gives what a plain dictionary gives."""
    heap, plain = DeadlineHeap(), dict[int, float]()
    for key, deadline, keep in actions:
        if keep:
            heap.add(key, deadline)
            plain[key] = deadline
        else:
            heap.discard(key)
            plain.pop(key, None)
    expired, next_seconds = heap.due(now)
    assert expired == tuple(sorted((k for k in plain if plain[k] <= now), key=lambda k: (plain[k], k)))
    assert next_seconds == min((d for d in plain.values() if d > now), default=None)
    assert len(heap) == len(plain)


def test_the_heap_does_not_keep_what_is_gone() -> None:
    """Calls with far deadlines that end early leave no trace behind."""
    heap = DeadlineHeap()
    heap.add(-1, 0.5)
    for key in range(10_000):
        heap.add(key, 1e6 + key)
        heap.discard(key)
    assert lines_run(lambda: heap.due(1e9)) < 3000
