"""Takes a call's message off the wire, within bounds of number, bytes and time.

grpc grants the room for a whole message as soon as somebody waits for it. So only so many messages are waited for at
once (`Turns`), and one that is not here after a moment holds what a whole message may hold (`Intake`): it is then cut
off where others need the room. Nothing is waited for longer than a fixed time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Hashable

import grpc

from mlx_grpc.bounds.intake import Holding, Intake
from mlx_grpc.errors import IntakeFull, InvalidField, MlxGrpcError
from mlx_grpc.rpc.context import Context
from mlx_grpc.rpc.turns import Turn, Turns

GRACE_SECONDS, LEAST_GRACE_SECONDS = 0.1, 0.01
"""A message that was sent with its call is here well within this time; the shorter one holds while other connections
wait for a place."""
SLOW_SECONDS = 30.0
"""No message is waited for longer than this."""
MIN_PLACES, MAX_PLACES = 4, 64
_LOOKS = 4
"""Turns of the event loop between a message's arrival and the end of its read: a late timer looks so often."""

End = Callable[[MlxGrpcError], Awaitable[None]]
"""Ends the call with an error, from whatever task; the read then raises grpc's AbortError."""


class Arrivals:
    """One for all calls of a server."""

    def __init__(self, intake: Intake, message_bytes: int, max_waiting: int = 0) -> None:
        self.intake = intake
        self.message_bytes = message_bytes
        # Those that are read and not slow yet come on top of the intake: a third of it.
        places = max(MIN_PLACES, min(MAX_PLACES, intake.total_bytes // message_bytes // 3))
        self.turns = Turns(places, time.monotonic, max_waiting)
        self.ending: set[asyncio.Task[None]] = set()

    async def read(self, context: Context, connection: Hashable, end: End) -> bytes | None:
        """The next message's bytes; None when the client has sent its last.

        Raises IntakeFull when too much is arriving; grpc's AbortError when `end` was called meanwhile.
        """
        reading = _Reading(self, self.turns.take(connection) or await self.turns.wait(connection), end)
        try:
            message = await context.read()
        finally:
            reading.close()
        data: bytes | None = None if message is grpc.aio.EOF else message
        return data


class _Reading:
    """A message on its way."""

    def __init__(self, arrivals: Arrivals, turn: Turn, end: End) -> None:
        self._arrivals = arrivals
        self._turn = turn
        self._end = end
        self._holding: Holding | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._began_seconds = self._loop.time()
        self._timer = self._loop.call_later(LEAST_GRACE_SECONDS, self._look, _LOOKS)

    def close(self) -> None:
        """It is here, or will not come any more."""
        self._closed = True
        self._timer.cancel()
        self._turn.close()
        if self._holding is not None:
            self._holding.close()

    def _look(self, looks_left: int) -> None:
        """The loop may have been held up, and the message be here: what is ready goes first."""
        if self._closed:
            return
        if looks_left:
            self._loop.call_soon(self._look, looks_left - 1)
        elif self._loop.time() - self._began_seconds >= GRACE_SECONDS or self._arrivals.turns.others_wait(
            self._turn.connection
        ):
            self._be_slow()
        else:
            self._timer = self._loop.call_later(LEAST_GRACE_SECONDS, self._look, _LOOKS)

    def _be_slow(self) -> None:
        """Hold what the whole message may be; leave the place to others."""
        arrivals, connection = self._arrivals, self._turn.connection
        arrivals.turns.mark_slow(connection)
        self._timer = self._loop.call_later(SLOW_SECONDS - GRACE_SECONDS, self._be_late)
        self._holding = arrivals.intake.open(connection, self._be_cut_off)
        try:
            self._holding.grow(arrivals.message_bytes)
        except IntakeFull as error:
            self._stop(error)  # and keep the place until it has ended
        else:
            self._turn.close()

    def _be_cut_off(self) -> None:
        self._stop(IntakeFull("the message came too slowly, and others needed its room", retry_after_seconds=1.0))

    def _be_late(self) -> None:
        self._stop(InvalidField(f"no whole message came within {SLOW_SECONDS:g} s", field="request"))

    def _stop(self, error: MlxGrpcError) -> None:
        self._timer.cancel()
        ending = self._loop.create_task(self._stopped(error))
        self._arrivals.ending.add(ending)
        ending.add_done_callback(self._arrivals.ending.discard)

    async def _stopped(self, error: MlxGrpcError) -> None:
        if not self._closed:
            with contextlib.suppress(grpc.aio.BaseError):  # AbortError is how it ends; others when the client has gone
                await self._end(error)
