"""The event loop's time for what clients send: one small piece of work at a time, and half of the loop's time at most.

Parsing is done where it is asked for while there is time; when a slice of it is used up, the rest waits for its turn,
in the order in which it came, and everything else that the loop has to do goes between. So a thousand requests that
arrive at once delay a token by one slice and one piece of work, and not by a thousand of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ParamSpec, TypeVar

Params = ParamSpec("Params")
Result = TypeVar("Result")

SLICE_SECONDS = 0.01
"""So much work is done between two rests; protects the pace of streams and of health checks."""
LARGE_BYTES = 512 * 1024
"""Parsing so much may take longer than a slice."""
READ_BYTES = 8 * 1024
"""What one read of a socket takes at most; bounds the work that one read can make, and what lies unread."""
_KEY = "turns"
_ENDED = object()


class Turns:
    """One listener's, in one event loop."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BYTES))
        """What a read fills; its owner copies it at once."""
        self._waiting: deque[tuple[Callable[[], object], bool]] = deque()
        self._spent_seconds = 0.0
        self._rests = False
        self._renews = False

    @property
    def free(self) -> bool:
        """Whether work would be done at once."""
        return not self._rests and not self._waiting

    def do(self, work: Callable[[], object], *, alone: bool = False) -> None:
        """Now, or when it has its turn; `alone`: first in a slice, since it may take longer than one. The work must not
        raise."""
        if alone and self.free and self._spent_seconds:
            self._rest()
        if self.free:
            self._do(work)
        else:
            self._waiting.append((work, alone))

    async def run(self, work: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result:
        """What the work returns or raises, now or when it has its turn."""
        return await self._run(partial(work, *args, **kwargs), alone=False)

    async def run_alone(self, work: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result:
        """The same of work that may take longer than a slice: what came before it in one is over."""
        return await self._run(partial(work, *args, **kwargs), alone=True)

    async def _run(self, work: Callable[[], Result], *, alone: bool) -> Result:
        outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def do() -> None:
            if outcome.done():  # whoever asked has gone
                return
            try:
                outcome.set_result(work())
            except Exception as error:
                outcome.set_exception(error)

        self.do(do, alone=alone)
        return outcome.result() if outcome.done() else await outcome

    async def run_each(self, steps: Iterator[object]) -> None:
        """All steps of the iteration, each a piece of work. Raises what a step raises."""
        while await self.run(next, steps, _ENDED) is not _ENDED:
            pass

    def charge(self, seconds: float) -> None:
        """So much more is used up, by what follows from work that was done."""
        loop = asyncio.get_running_loop()
        self._spent_seconds += seconds
        if self._rests:
            return
        if self._spent_seconds > SLICE_SECONDS:
            self._rest()
        elif not self._renews:
            self._renews = True
            loop.call_later(SLICE_SECONDS, self._renew)

    def _do(self, work: Callable[[], object]) -> None:
        began_seconds = time.perf_counter()
        work()
        self.charge(time.perf_counter() - began_seconds)

    def _renew(self) -> None:
        """Only the event loop itself gets here: as long as it is held, nothing is forgiven."""
        self._renews = False
        if not self._rests:
            self._spent_seconds = max(0.0, self._spent_seconds - SLICE_SECONDS / 2)
            if self._spent_seconds:
                self.charge(0.0)

    def _go_on(self) -> None:
        self._rests, self._spent_seconds = False, 0.0
        while self._waiting and not self._rests:
            work, alone = self._waiting[0]
            if alone and self._spent_seconds:
                self._rest()
            else:
                self._waiting.popleft()
                self._do(work)

    def _rest(self) -> None:
        self._rests = True
        asyncio.get_running_loop().call_later(self._spent_seconds, self._go_on)

    def among(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """An ASGI scope's state with these turns in it."""
        return {**state, _KEY: self}


def turns_of(scope: Mapping[str, Any]) -> Turns:
    """The turns of the listener that a call came to; new ones for a call that came over none, as in a test."""
    turns = scope.get("state", {}).get(_KEY)
    return turns if isinstance(turns, Turns) else Turns()
