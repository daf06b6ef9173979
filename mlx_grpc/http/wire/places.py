"""A listener's connections, by what each of them waits for. When there are too many, those end that say the least."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Protocol


class Phase(IntEnum):
    """In the order in which connections are ended to make room."""

    SILENT = 0
    """It has not sent a whole request yet, or is being closed."""
    IDLE = 1
    """Between two requests."""
    SENDING = 2
    """A body is on its way."""
    OPEN = 3
    """A WebSocket without a question."""
    WORKING = 4
    """It is the server's turn: never ended for others."""


class Connection(Protocol):
    """Who has a place."""

    def end(self) -> None:
        """Close, without an answer."""

    def check(self, now_seconds: float) -> None:
        """Close if something is over its time; called about once a second."""


class Places:
    """For one listener. Within a phase, those that have been in it for the longest come first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ended_count = 0
        """Connections that were ended to make room."""
        self._phases: dict[Phase, dict[Connection, None]] = {phase: {} for phase in Phase}
        self._of: dict[Connection, Phase] = {}

    def __len__(self) -> int:
        return len(self._of)

    def move(self, connection: Connection, phase: Phase) -> None:
        """It is in this phase from now on; again in the same one, it counts as the last that came into it."""
        if (before := self._of.get(connection)) is not None:
            del self._phases[before][connection]
        self._of[connection] = phase
        self._phases[phase][connection] = None

    def leave(self, connection: Connection) -> None:
        """It has no place any more."""
        if (phase := self._of.pop(connection, None)) is not None:
            del self._phases[phase][connection]

    def enter(self, newcomer: Connection) -> None:
        """A place for one that has just connected, if need be that of another; without any, it has one too many."""
        if len(self._of) + 1 >= self.limit and (victim := self._least()) is not None:
            self.leave(victim)
            self.ended_count += 1
            victim.end()
        self.move(newcomer, Phase.SILENT)

    def _least(self) -> Connection | None:
        for phase in Phase:
            if phase is not Phase.WORKING and self._phases[phase]:
                return next(iter(self._phases[phase]))
        return None

    def check(self, now_seconds: float) -> None:
        """Have each connection look at its times."""
        for connection in list(self._of):
            connection.check(now_seconds)


class Since:
    """When something began that must end in time."""

    def __init__(self) -> None:
        self.seconds = math.inf

    def begin(self, now_seconds: float) -> None:
        """It begins now, unless it has begun."""
        self.seconds = min(self.seconds, now_seconds)

    def end(self) -> None:
        """It has ended."""
        self.seconds = math.inf
