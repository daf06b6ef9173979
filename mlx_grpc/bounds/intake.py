"""The bytes that were taken in and not yet answered, for the process and for each connection.

Unread bodies, partial messages, parsed requests, questions that wait: whoever holds such bytes opens a holding and
tells it how many they are. Over a bound, the holding that grew is refused, or one that is still arriving is cut off for
it: the oldest of the connection that holds the most. A message that has arrived whole is never cut off. So a client
that sends slowly, or never ends what it began, takes nobody else's place.

Lives in the event loop; never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from mlx_grpc.errors import IntakeFull

LEAST_TOTAL_BYTES = 40 * 1024 * 1024
LEAST_CONNECTION_BYTES = 16 * 1024 * 1024
RETRY_SECONDS = 1.0
"""Messages arrive, or are cut off, well within this time."""


class Intake:
    """The account of one process."""

    def __init__(self, total_bytes: int, connection_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.connection_bytes = connection_bytes
        self.held_bytes = 0
        self.taken_bytes = 0
        """All that was ever taken in."""
        self.cut_off_count = 0
        self.refused_count = 0
        self._connections: dict[Hashable, _Connection] = {}

    @classmethod
    def for_messages(cls, message_bytes: int, total_bytes: int | None = None) -> Intake:
        """Bounds for messages of at most `message_bytes`; `total_bytes` where somebody has chosen it."""
        total_bytes = max(total_bytes or LEAST_TOTAL_BYTES, 2 * message_bytes)
        return cls(total_bytes, min(total_bytes, max(LEAST_CONNECTION_BYTES, message_bytes)))

    def open(self, connection: Hashable, cut_off: Callable[[], None]) -> Holding:
        """A holding of nothing as yet, for something that begins to arrive.

        `cut_off` is called once, without arguments, when the bytes are wanted for others while it still arrives; the
        holding is closed then.
        """
        return Holding(self, connection, cut_off)

    def _grow(self, holding: Holding, more_bytes: int) -> None:
        mine = self._connections.get(holding.connection)
        held_bytes = mine.bytes if mine else 0
        if held_bytes + more_bytes > self.connection_bytes:
            raise self._full(f"this connection has {held_bytes} bytes unanswered, of at most {self.connection_bytes}")
        while self.held_bytes + more_bytes > self.total_bytes:
            victim = self._victim(holding)
            if victim is None:
                raise self._full(f"the server has {self.held_bytes} bytes unanswered, of at most {self.total_bytes}")
            self.cut_off_count += 1
            victim.close()
            victim.cut_off()
        self._add(holding, more_bytes)

    def _victim(self, growing: Holding) -> Holding | None:
        """The oldest that still arrives, of the connection that holds the most; None when that is `growing`'s own."""
        arriving = [one for one in self._connections.values() if one.arriving]
        most = max(arriving, key=lambda one: one.bytes, default=None)
        mine = self._connections.get(growing.connection)
        if most is None or (mine is not None and mine.bytes >= most.bytes):
            return None
        return next(iter(most.arriving))

    def _add(self, holding: Holding, more_bytes: int) -> None:
        mine = self._connections.setdefault(holding.connection, _Connection())
        mine.bytes += more_bytes
        self.held_bytes += more_bytes
        self.taken_bytes += more_bytes
        holding.bytes += more_bytes
        if holding.is_arriving:
            mine.arriving.setdefault(holding)

    def _take_back(self, holding: Holding) -> None:
        if (mine := self._connections.get(holding.connection)) is None:
            return
        mine.bytes -= holding.bytes
        self.held_bytes -= holding.bytes
        mine.arriving.pop(holding, None)
        if not mine.bytes and not mine.arriving:
            del self._connections[holding.connection]

    def _arrived(self, holding: Holding) -> None:
        if mine := self._connections.get(holding.connection):
            mine.arriving.pop(holding, None)

    def _full(self, message: str) -> IntakeFull:
        self.refused_count += 1
        return IntakeFull(f"too much waits to be answered: {message}", retry_after_seconds=RETRY_SECONDS)


class Holding:
    """What one message, body or question holds. Close it when it is answered; closing twice does nothing."""

    def __init__(self, intake: Intake, connection: Hashable, cut_off: Callable[[], None]) -> None:
        self.connection = connection
        self.cut_off = cut_off
        self.bytes = 0
        self.is_arriving = True
        self.closed = False
        self._intake = intake

    @property
    def most_bytes(self) -> int:
        """What one connection may hold altogether."""
        return self._intake.connection_bytes

    def __enter__(self) -> Holding:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def grow(self, more_bytes: int) -> None:
        """So many bytes more have come. Raises IntakeFull, and then has not grown; nothing for a closed one."""
        if not self.closed and more_bytes > 0:
            self._intake._grow(self, more_bytes)

    def arrived(self) -> None:
        """It is here whole: it is not cut off any more."""
        if self.is_arriving:
            self.is_arriving = False
            self._intake._arrived(self)

    def close(self) -> None:
        """It is answered, or gone: its bytes are free."""
        if not self.closed:
            self.closed = True
            self._intake._take_back(self)


class _Connection:
    """What one connection holds, and what of it still arrives, the oldest first."""

    def __init__(self) -> None:
        self.bytes = 0
        self.arriving: dict[Holding, None] = {}
