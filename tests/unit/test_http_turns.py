"""The event loop's time for what clients send."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from mlx_grpc.http.turns import SLICE_SECONDS, Turns, turns_of

WORK_SECONDS = SLICE_SECONDS / 2


def work(seconds: float = WORK_SECONDS) -> float:
    """Keeps the interpreter busy; when it began."""
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        pass
    return began


def test_little_work_is_done_at_once() -> None:
    """Without a turn of the event loop."""

    async def main() -> None:
        turns, running = Turns(), Turns().run(int, "7")
        with pytest.raises(StopIteration) as done:
            running.send(None)
        assert done.value.value == 7
        assert turns.free

    asyncio.run(main())


def test_much_work_leaves_the_loop_to_others() -> None:
    """Between two pieces, once a slice is used up; and it is done in order."""

    async def main() -> None:
        turns, others = Turns(), 0

        async def other() -> None:
            nonlocal others
            while True:
                await asyncio.sleep(0)
                others += 1

        counting = asyncio.create_task(other())
        began = await asyncio.gather(*(turns.run(work) for _ in range(20)))
        counting.cancel()
        assert began == sorted(began)
        assert others >= 5
        # Half of the time is the others'.
        assert began[-1] - began[0] >= 1.3 * 18 * WORK_SECONDS

    asyncio.run(main())


def test_long_work_begins_a_slice() -> None:
    """Whether others were done before it in the same slice, or wait with it."""

    async def main() -> None:
        turns = Turns()
        ends: dict[str, int] = {}
        turns.do(partial(work, SLICE_SECONDS / 10))
        turns.do(lambda: ends.setdefault("first", passes), alone=True)
        turns.do(partial(work, SLICE_SECONDS / 10))
        turns.do(lambda: ends.setdefault("second", passes), alone=True)
        assert not ends
        passes = 0
        while len(ends) < 2:
            await asyncio.sleep(0)
            passes += 1
        assert ends["first"] < ends["second"]

    asyncio.run(main())


def test_what_it_raises_is_raised() -> None:
    """At once, and in its turn."""

    async def main() -> None:
        turns = Turns()
        for _ in range(2):
            with pytest.raises(ValueError, match="invalid literal"):
                await turns.run(int, "x")
            turns.do(partial(work, 3 * SLICE_SECONDS))
            assert not turns.free

    asyncio.run(main())


def test_work_of_who_has_gone_is_not_done() -> None:
    """A client that leaves costs nothing more."""

    async def main() -> None:
        turns = Turns()
        done: list[int] = []
        turns.do(partial(work, 2 * SLICE_SECONDS))
        asking = asyncio.create_task(turns.run(done.append, 1))
        await asyncio.sleep(0)
        asking.cancel()
        await turns.run(int)
        assert not done

    asyncio.run(main())


def test_calls_of_a_listener_share_its_turns() -> None:
    """By the state of their scopes."""
    turns = Turns()
    assert turns_of({"state": turns.among({"a": 1})}) is turns
    assert turns_of({}) is not turns
