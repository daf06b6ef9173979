"""Threads in fair turns: who goes next, who is refused, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from mlx_grpc.errors import Draining, QueueFull
from mlx_grpc.service.intake import turns as module
from mlx_grpc.service.intake.turns import LONG_AT_ONCE, SHORT_AT_ONCE, SHORT_CHARACTERS, HasLeft, Turns
from tests.helpers.rpc import in_loop

LONG = SHORT_CHARACTERS + 1


class Threads:
    """Work that waits until it is let go, and notes who had a thread."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.began: list[str] = []
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def work(self, name: str) -> Callable[[HasLeft], str]:
        def run(_: HasLeft) -> str:
            with self._lock:
                self.began.append(name)
                self.running += 1
                self.most = max(self.most, self.running)
            self.go.acquire()
            with self._lock:
                self.running -= 1
            return name

        return run


async def turn_of_loop(turns: Turns, waiting: int) -> None:
    while turns.waiting != waiting:  # noqa: ASYNC110 - of this very loop
        await asyncio.sleep(0)


@in_loop
async def test_callers_have_turns() -> None:
    """A caller's first chat goes after one of another's, not after all of them."""
    turns, threads = Turns(), Threads()
    many = [asyncio.create_task(turns.run(threads.work(f"a{n}"), 1, "a")) for n in range(SHORT_AT_ONCE + 4)]
    await turn_of_loop(turns, 4)
    one = asyncio.create_task(turns.run(threads.work("b"), 1, "b"))
    await turn_of_loop(turns, 5)
    threads.go.release(SHORT_AT_ONCE + 5)
    assert await one == "b"
    await asyncio.gather(*many)
    assert threads.began.index("b") <= SHORT_AT_ONCE + 1
    await turns.close()


@in_loop
async def test_a_short_chat_does_not_wait_for_long_ones() -> None:
    """They have threads of their own."""
    turns, threads = Turns(), Threads()
    long = [asyncio.create_task(turns.run(threads.work("long"), LONG, str(n))) for n in range(LONG_AT_ONCE + 2)]
    await turn_of_loop(turns, 2)
    assert await turns.run(lambda _: "short", 1, "0") == "short"
    threads.go.release(len(long))
    await asyncio.gather(*long)
    assert threads.most == LONG_AT_ONCE
    await turns.close()


@in_loop
async def test_a_chat_without_arguments_does_not_wait_for_those_with() -> None:
    """Arguments may lead a template where it takes a second each time."""
    turns, threads = Turns(), Threads()
    tasks = [asyncio.create_task(turns.run(threads.work("with"), 1, argued=True)) for _ in range(SHORT_AT_ONCE + 2)]
    await turn_of_loop(turns, 2)
    assert await turns.run(lambda _: "without", 1) == "without"
    threads.go.release(len(tasks))
    await asyncio.gather(*tasks)
    await turns.close()


@in_loop
async def test_one_caller_does_not_take_all_threads_for_long_work() -> None:
    """Another's long chat begins at once."""
    turns, threads = Turns(), Threads()
    mine = [asyncio.create_task(turns.run(threads.work("a"), LONG, "a")) for _ in range(4)]
    await turn_of_loop(turns, 3)
    assert await turns.run(lambda _: "b", LONG, "b") == "b"
    threads.go.release(4)
    await asyncio.gather(*mine)
    assert threads.most == 1
    await turns.close()


@in_loop
async def test_those_who_leave_are_forgotten_or_told() -> None:
    """Work that waits is never done; work that runs hears that nobody wants it."""
    turns, threads = Turns(), Threads()
    running = [asyncio.create_task(turns.run(threads.work("runs"), 1)) for _ in range(SHORT_AT_ONCE - 1)]
    heard = threading.Event()

    def listen(has_left: HasLeft) -> None:
        while not has_left():
            pass
        heard.set()

    listening = asyncio.create_task(turns.run(listen, 1))
    waiting = asyncio.create_task(turns.run(threads.work("waits"), 1))
    await turn_of_loop(turns, 1)
    for task in (waiting, listening):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert turns.waiting == 0
    await asyncio.to_thread(heard.wait)
    threads.go.release(len(running))
    await asyncio.gather(*running)
    assert "waits" not in threads.began
    await turns.close()


@in_loop
async def test_when_too_many_wait_the_one_with_most_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time to try again; another's first finds a place, which that one's last loses."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    turns, threads = Turns(), Threads()
    many = [asyncio.create_task(turns.run(threads.work("a"), 1, "a")) for _ in range(SHORT_AT_ONCE + 3)]
    await turn_of_loop(turns, 3)
    with pytest.raises(QueueFull) as caught:
        await turns.run(threads.work("a"), 1, "a")
    assert caught.value.retry_after_seconds
    other = asyncio.create_task(turns.run(threads.work("b"), 1, "b"))
    with pytest.raises(QueueFull):
        await many[-1]
    threads.go.release(SHORT_AT_ONCE + 3)
    assert await other == "b"
    assert await asyncio.gather(*many[:-1]) == ["a"] * (SHORT_AT_ONCE + 2)
    await turns.close()


@in_loop
async def test_errors_are_the_callers() -> None:
    """And the thread goes on."""
    turns = Turns()

    def fail(_: HasLeft) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await turns.run(fail, 1)
    assert await turns.run(lambda _: 1, 1) == 1
    await turns.close()


@in_loop
async def test_closing_refuses_what_waits_and_ends_the_threads() -> None:
    """What runs is told that nobody wants it."""
    before = threading.active_count()
    turns = Turns()

    def listen(has_left: HasLeft) -> str:
        while not has_left():
            pass
        return "heard"

    running = [asyncio.create_task(turns.run(listen, 1)) for _ in range(SHORT_AT_ONCE)]
    waiting = asyncio.create_task(turns.run(listen, 1))
    await turn_of_loop(turns, 1)
    await turns.close()
    assert await asyncio.gather(*running) == ["heard"] * SHORT_AT_ONCE
    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        await turns.run(listen, 1)
    assert threading.active_count() == before
