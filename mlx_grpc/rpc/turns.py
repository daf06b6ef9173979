"""Whose message is read next. So many are read at once, and a connection has at most half of these places.

Connections that were seen to send slowly share one half of the places for a while: the other half is free for everybody
else, who then waits for nobody. Those who wait are served connection by connection, in turn. Lives in the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial

from mlx_grpc.errors import IntakeFull
from mlx_grpc.rpc.refusals import Refusals

MAX_WAITING, MAX_WAITING_SLOW = 256, 128
"""Calls that wait for a place, of all other connections (more where the queue is longer) and of all slow ones. Each
takes some 60 KiB, and many at once leave the interpreter with memory that it does not give back."""
SLOW_FOR_SECONDS = 60.0
"""A connection counts as slow for so long after it was."""
MAX_SLOW = 4096
"""Slow connections that are remembered."""
RETRY_SECONDS = 1.0


class Turn:
    """A place, or the wait for one."""

    def __init__(self, turns: Turns, connection: Hashable, is_slow: bool) -> None:
        self.connection = connection
        self.is_slow = is_slow
        self.entered: asyncio.Future[None] | None = None  # for one that waits
        self.has_place = False
        self._turns = turns

    def close(self) -> None:
        """Give the place back, or stop waiting; the second time nothing happens."""
        self._turns._leave(self)


class Turns:
    """The places, and who waits for one."""

    def __init__(self, places: int, clock: Callable[[], float], max_waiting: int = 0) -> None:
        self.share = max(1, places // 2)
        """What a connection may have at once, and all slow ones together."""
        self._clock = clock
        self._max_waiting = {False: max(MAX_WAITING, max_waiting), True: MAX_WAITING_SLOW}
        self._refusals = Refusals()
        self._free = 2 * self.share
        self._free_for_slow = self.share
        self._reading: Counter[Hashable] = Counter()
        self._slow_until: dict[Hashable, float] = {}
        # By connection, the next to be served first; and of each who waits, the oldest first. Slow ones under True.
        self._waiting = {False: 0, True: 0}
        self._queues: dict[bool, dict[Hashable, dict[Turn, None]]] = {False: {}, True: {}}

    def take(self, connection: Hashable) -> Turn | None:
        """A place now; None where there is none, or where others of this connection wait for one."""
        turn = Turn(self, connection, self._is_slow(connection))
        if connection in self._queues[turn.is_slow] or not self._has_place_for(turn):
            return None
        self._enter(turn)
        return turn

    async def wait(self, connection: Hashable) -> Turn:
        """A place, when it is this connection's turn: within half a minute, since nobody keeps one for more than a
        moment. Raises IntakeFull where too many wait already."""
        turn = Turn(self, connection, self._is_slow(connection))
        turn.entered = asyncio.get_running_loop().create_future()
        self._queues[turn.is_slow].setdefault(connection, {})[turn] = None
        self._waiting[turn.is_slow] += 1
        self._serve(turn.is_slow)
        self._make_room(turn.is_slow)
        try:
            await turn.entered
        except BaseException:
            turn.close()
            raise
        return turn

    @property
    def waiting_count(self) -> int:
        """How many wait."""
        return sum(self._waiting.values())

    def others_wait(self, connection: Hashable) -> bool:
        """Whether other connections, which are not slow, wait for a place."""
        waiting = self._queues[False]
        return len(waiting) > (connection in waiting)

    def mark_slow(self, connection: Hashable) -> None:
        """It sends slowly: for a while it shares places with others like it."""
        self._slow_until.pop(connection, None)
        self._slow_until[connection] = self._clock() + SLOW_FOR_SECONDS
        if len(self._slow_until) > MAX_SLOW:
            del self._slow_until[next(iter(self._slow_until))]
        if waiting := self._queues[False].pop(connection, None):
            for turn in waiting:
                turn.is_slow = True
            self._queues[True].setdefault(connection, {}).update(waiting)
            self._waiting[False] -= len(waiting)
            self._waiting[True] += len(waiting)
            self._make_room(True)

    def _is_slow(self, connection: Hashable) -> bool:
        until_seconds = self._slow_until.get(connection)
        if until_seconds is not None and until_seconds <= self._clock():
            del self._slow_until[connection]
            return False
        return until_seconds is not None

    def _has_place_for(self, turn: Turn) -> bool:
        return (
            self._free > 0
            and (self._free_for_slow > 0 or not turn.is_slow)
            and self._reading[turn.connection] < self.share
        )

    def _enter(self, turn: Turn) -> None:
        turn.has_place = True
        self._free -= 1
        self._free_for_slow -= turn.is_slow
        self._reading[turn.connection] += 1
        if turn.entered is not None and not turn.entered.done():
            turn.entered.set_result(None)

    def _leave(self, turn: Turn) -> None:
        if not turn.has_place:
            self._forget(turn)
            return
        turn.has_place = False
        self._free += 1
        self._free_for_slow += turn.is_slow
        self._reading[turn.connection] -= 1
        if not self._reading[turn.connection]:
            del self._reading[turn.connection]
        self._serve(False)
        self._serve(True)

    def _serve(self, is_slow: bool) -> None:
        queue = self._queues[is_slow]
        while turn := next((one for one in map(_oldest, queue.values()) if self._has_place_for(one)), None):
            self._forget(turn)
            if waiting := queue.pop(turn.connection, None):
                queue[turn.connection] = waiting  # the others first
            self._enter(turn)

    def _forget(self, turn: Turn) -> None:
        """It waits no more."""
        queue = self._queues[turn.is_slow]
        waiting = queue.get(turn.connection, {})
        if turn in waiting:
            del waiting[turn]
            self._waiting[turn.is_slow] -= 1
        if not waiting:
            queue.pop(turn.connection, None)

    def _make_room(self, is_slow: bool) -> None:
        """Where too many wait, the connection with the most of them loses its newest."""
        while self._waiting[is_slow] > self._max_waiting[is_slow]:
            most: dict[Turn, None] = max(self._queues[is_slow].values(), key=len)
            newest = next(reversed(most))
            self._forget(newest)
            if newest.entered is not None:
                self._refusals.refuse(partial(_refuse, newest.entered))


def _refuse(entered: asyncio.Future[None]) -> None:
    if not entered.done():  # the client may have left meanwhile
        entered.set_exception(
            IntakeFull("too many calls wait for their message to be read", retry_after_seconds=RETRY_SECONDS)
        )


def _oldest(waiting: dict[Turn, None]) -> Turn:
    return next(iter(waiting))
