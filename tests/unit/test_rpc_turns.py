"""Whose message is read next."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from mlx_grpc.errors import IntakeFull
from mlx_grpc.rpc import refusals, turns
from mlx_grpc.rpc.refusals import Refusals
from mlx_grpc.rpc.turns import Turn, Turns
from tests.helpers.rpc import in_loop


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def waiting(found: Turns, connection: str, count: int = 1) -> list[asyncio.Task[Turn]]:
    """So many that wait, in this order."""
    tasks = [asyncio.ensure_future(found.wait(connection)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def entered(tasks: list[asyncio.Task[Turn]]) -> int:
    """How many of them have a place by now."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return sum(task.done() for task in tasks)


async def dropped(*many: list[asyncio.Task[Turn]]) -> None:
    for task in [task for tasks in many for task in tasks]:
        task.cancel()
    await asyncio.sleep(0)


def taken(found: Turns, connection: str) -> Turn:
    turn = found.take(connection)
    assert turn is not None
    return turn


@in_loop
async def test_a_connection_has_half_of_the_places() -> None:
    """The others are for others, and one that is given back is there again."""
    found = Turns(4, Clock())
    first = [taken(found, "a") for _ in range(2)]
    assert found.take("a") is None
    second = [taken(found, "b") for _ in range(2)]
    assert found.take("c") is None
    first[0].close()
    first[0].close()
    assert found.take("c") is not None
    assert found.take("c") is None
    assert found.take("a") is None
    second[0].close()
    assert found.take("a") is not None


@in_loop
async def test_connections_are_served_in_turn() -> None:
    """One that has hundreds of calls waiting does not stand before another's first."""
    found = Turns(2, Clock())
    held = [taken(found, "x"), taken(found, "y")]
    many = await waiting(found, "a", turns.MAX_WAITING - 1)
    few = await waiting(found, "b")
    assert await entered(many) == 0
    held[0].close()
    assert (await entered(many), await entered(few)) == (1, 0)
    many[0].result().close()
    assert (await entered(many), await entered(few)) == (1, 1)
    await dropped(many)


@in_loop
async def test_others_wait_where_others_do() -> None:
    """A connection's own calls, and those of slow ones, are nobody's hurry."""
    found = Turns(2, Clock())
    held = [taken(found, "x"), taken(found, "y")]
    found.mark_slow("s")
    own, slow = await waiting(found, "x"), await waiting(found, "s")
    assert (found.others_wait("x"), found.others_wait("y"), len(held)) == (False, True, 2)
    await dropped(own, slow)


@in_loop
async def test_slow_connections_share_one_half() -> None:
    """Those that were not slow never wait for them; after a while they are like others again."""
    clock = Clock()
    found = Turns(4, clock)
    for connection in "ab":
        found.mark_slow(connection)
    slow = [taken(found, "a"), taken(found, "b")]
    assert found.take("b") is None
    assert found.take("c") is not None
    more = await waiting(found, "b", 2)
    assert found.take("d") is not None
    slow[0].close()
    assert await entered(more) == 1
    clock.seconds = turns.SLOW_FOR_SECONDS
    slow[1].close()
    assert await entered(more) == 2
    await dropped(more)


@in_loop
async def test_who_waits_and_is_seen_to_be_slow_waits_with_the_slow() -> None:
    """Its calls that wait already do not keep the half of the others."""
    found = Turns(2, Clock())
    held = [taken(found, "x"), taken(found, "y")]
    a, b = await waiting(found, "a"), await waiting(found, "b")
    found.mark_slow("a")
    held[0].close()
    assert (await entered(a), await entered(b)) == (0, 1)
    held[1].close()
    assert await entered(a) == 1


@in_loop
async def test_a_call_that_leaves_while_it_waits_leaves_nothing() -> None:
    """Also when its place had just come."""
    found = Turns(2, Clock())
    held = [taken(found, "x"), taken(found, "y")]
    a, b = await waiting(found, "a"), await waiting(found, "b")
    a[0].cancel()
    await asyncio.sleep(0)
    assert found.waiting_count == 1
    held[0].close()
    b[0].cancel()
    await asyncio.sleep(0)
    assert found.take("c") is not None
    assert found.waiting_count == 0


@in_loop
async def test_the_wait_is_bounded_and_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection with the most that wait loses its newest, which may be the one that has just come."""
    monkeypatch.setattr(turns, "MAX_WAITING", 3)
    found = Turns(2, Clock())
    held = [taken(found, "x"), taken(found, "y")]
    many = await waiting(found, "a", 3)
    few = await waiting(found, "b")
    with pytest.raises(IntakeFull):
        await many[2]
    (one_more,) = await waiting(found, "a")
    with pytest.raises(IntakeFull):
        await one_more
    assert not few[0].done()
    assert len(held) == 2
    await dropped(many[:2], few)


@in_loop
async def test_as_many_wait_as_the_queue_has_places_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an operator has asked for a longer queue, calls that come together are not refused before it."""
    monkeypatch.setattr(turns, "MAX_WAITING", 3)
    found = Turns(2, Clock(), max_waiting=5)
    held = [taken(found, "x"), taken(found, "y")]
    many = await waiting(found, "a", 6)
    with pytest.raises(IntakeFull):
        await many[5]
    assert found.waiting_count == 5
    assert len(held) == 2
    await dropped(many[:5])


@in_loop
async def test_fewer_wait_of_slow_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is seen to be slow loses the newest of those that wait already."""
    monkeypatch.setattr(turns, "MAX_WAITING_SLOW", 1)
    found = Turns(2, Clock())
    held = [taken(found, "x"), taken(found, "y")]
    tasks = await waiting(found, "a", 3)
    found.mark_slow("a")
    for refused in tasks[1:]:
        with pytest.raises(IntakeFull):
            await refused
    assert (await entered(tasks[:1]), found.waiting_count, len(held)) == (0, 1, 2)
    await dropped(tasks[:1])


@in_loop
async def test_refusals_are_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they came; those in the interval after a pause are at once."""
    monkeypatch.setattr(refusals, "AT_ONCE", 2)
    monkeypatch.setattr(refusals, "EVERY_SECONDS", 0.001)
    found, ended, last = Refusals(), list[int](), asyncio.Event()
    for number in range(5):
        found.refuse(partial(ended.append, number))
    found.refuse(last.set)
    assert ended == [0, 1]
    await asyncio.wait_for(last.wait(), 10)
    assert ended == [0, 1, 2, 3, 4]


@in_loop
async def test_what_waits_to_be_refused_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many wait, the oldest does not wait any longer."""
    monkeypatch.setattr(refusals, "AT_ONCE", 0)
    monkeypatch.setattr(refusals, "MAX_PUT_OFF", 3)
    found, ended = Refusals(), list[int]()
    for number in range(5):
        found.refuse(partial(ended.append, number))
    assert ended == [0, 1]
