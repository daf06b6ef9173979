"""Threads for work that clients ask for, in fair turns.

Rendering and tokenizing take from a tenth of a millisecond to a second. Short work, long work and chats with template
arguments, which may lead a template where it takes long, have threads of their own, so that a short chat never waits
for those. Within each, callers have turns, one after the other: one caller's hundred chats do not stand before
another's first. When too many wait, the caller with the most of them is refused.

Lives in the event loop that made it. The threads are this object's own: close it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from mlx_grpc.errors import Draining, QueueFull

SHORT_CHARACTERS = 64 * 1024
SHORT_AT_ONCE = 2
LONG_AT_ONCE = 2
EACH_LONG_AT_ONCE = 1
"""Of one caller: another's long chat never waits for two of them."""
MAX_WAITING = 512
RETRY_SECONDS = 1.0

Result = TypeVar("Result")
HasLeft = Callable[[], bool]


class Turns:
    """The threads of one model."""

    def __init__(self) -> None:
        self._short = _Lane("short", SHORT_AT_ONCE, SHORT_AT_ONCE)
        self._argued = _Lane("argued", SHORT_AT_ONCE, SHORT_AT_ONCE)
        self._long = _Lane("long", LONG_AT_ONCE, EACH_LONG_AT_ONCE)

    async def run(
        self, work: Callable[[HasLeft], Result], characters: int, caller: str = "", *, argued: bool = False
    ) -> Result:
        """What the work returns or raises, done in a thread. It is told, when it asks, whether its caller has left:
        then it may end soon. A caller that leaves while it waits is forgotten.

        Raises QueueFull when too many wait, Draining after `close`.
        """
        lane = self._long if characters > SHORT_CHARACTERS else self._argued if argued else self._short
        return await lane.run(work, caller)

    @property
    def waiting(self) -> int:
        """How much work waits for a thread."""
        return self._short.waiting + self._argued.waiting + self._long.waiting

    async def close(self) -> None:
        """Refuse what waits, let what runs end soon, and end the threads."""
        await asyncio.gather(self._short.close(), self._argued.close(), self._long.close())


class _Job(Generic[Result]):
    """One piece of work. `result` is for the caller, who may leave it."""

    def __init__(self, work: Callable[[HasLeft], Result], caller: str) -> None:
        self.caller = caller
        self.has_left = False
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._work = work

    def do(self) -> Result:
        return self._work(lambda: self.has_left)


class _Lane:
    """Some threads, and those who wait for one."""

    def __init__(self, name: str, at_once: int, each_at_once: int) -> None:
        self._at_once = at_once
        self._each_at_once = each_at_once
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=f"intake-{name}")
        self._lines: OrderedDict[str, deque[_Job[Any]]] = OrderedDict()  # the caller whose turn it is comes first
        self._running: dict[asyncio.Future[Any], _Job[Any]] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lines.values()))

    async def run(self, work: Callable[[HasLeft], Result], caller: str) -> Result:
        if self._closed:
            raise Draining("the server is going down")
        self._make_room(caller)
        job = _Job(work, caller)
        self._lines.setdefault(caller, deque()).append(job)
        self._start()
        try:
            return await job.result
        except asyncio.CancelledError:
            job.has_left = True
            self._forget(job)
            raise

    async def close(self) -> None:
        self._closed = True
        for job in [job for line in self._lines.values() for job in line]:
            self._refuse(job, Draining("the server is going down"))
        for job in self._running.values():
            job.has_left = True
        await asyncio.gather(*self._running, return_exceptions=True)
        self._threads.shutdown()

    def _make_room(self, caller: str) -> None:
        """Raises QueueFull for the caller with the most waiting work, or refuses the last of another who has more."""
        if self.waiting < MAX_WAITING:
            return
        most = max(self._lines.values(), key=len)
        full = QueueFull("too many prompts wait to be tokenized", retry_after_seconds=RETRY_SECONDS)
        if len(self._lines.get(caller, ())) + 1 >= len(most):
            raise full
        self._refuse(most[-1], full)

    def _refuse(self, job: _Job[Any], error: Exception) -> None:
        self._forget(job)
        if not job.result.done():
            job.result.set_exception(error)

    def _forget(self, job: _Job[Any]) -> None:
        line = self._lines.get(job.caller)
        if line is not None and job in line:
            line.remove(job)
            if not line:
                del self._lines[job.caller]

    def _start(self) -> None:
        """Start what may be started now."""
        while len(self._running) < self._at_once and (job := self._next()) is not None:
            done = asyncio.get_running_loop().run_in_executor(self._threads, job.do)
            self._running[done] = job
            done.add_done_callback(self._ended)

    def _next(self) -> _Job[Any] | None:
        """The first of the caller whose turn it is; that caller's next turn comes after all others'."""
        for caller, line in self._lines.items():
            if sum(job.caller == caller for job in self._running.values()) < self._each_at_once:
                job = line.popleft()
                self._lines.move_to_end(caller)
                if not line:
                    del self._lines[caller]
                return job
        return None

    def _ended(self, done: asyncio.Future[Any]) -> None:
        job = self._running.pop(done)
        error = done.exception()
        if not job.result.done():
            if error is not None:
                job.result.set_exception(error)
            else:
                job.result.set_result(done.result())
        self._start()
