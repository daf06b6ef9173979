"""Who watches the server's health: bounded in all and for each connection, so that nobody keeps others out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

MAX_WATCHERS = 512
MAX_WATCHERS_PER_CONNECTION = 128


class Watcher:
    """One that watches. `changed` is set when there may be something to tell; `put_out` when its place was wanted."""

    def __init__(self, connection: str) -> None:
        self.connection = connection
        self.changed = asyncio.Event()
        self.put_out = False


class Watchers:
    """All of them, by connection, the oldest of each first."""

    def __init__(self, total: int = MAX_WATCHERS, of_connection: int = MAX_WATCHERS_PER_CONNECTION) -> None:
        self.total = total
        self.of_connection = of_connection
        self.count = 0
        self._connections: dict[str, dict[Watcher, None]] = {}

    def __iter__(self) -> Iterator[Watcher]:
        for watchers in self._connections.values():
            yield from watchers

    def join(self, connection: str) -> Watcher | None:
        """A new watcher. None where its connection has all that it may have.

        Where all places are taken, the connection with the most watchers loses its oldest; None when that is this one.
        """
        mine = len(self._connections.get(connection, ()))
        if mine >= self.of_connection:
            return None
        if self.count >= self.total:
            most = max(self._connections.values(), key=len)
            if mine >= len(most):
                return None
            oldest = next(iter(most))
            self.leave(oldest)
            oldest.put_out = True
            oldest.changed.set()
        watcher = Watcher(connection)
        self._connections.setdefault(connection, {})[watcher] = None
        self.count += 1
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """It watches no more; the second time nothing happens."""
        mine = self._connections.get(watcher.connection, {})
        if watcher not in mine:
            return
        del mine[watcher]
        self.count -= 1
        if not mine:
            del self._connections[watcher.connection]
