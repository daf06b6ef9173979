"""What an engine's process writes to stderr, as lines of the server's log: escaped and bounded as all of it.

Tracebacks, and what libraries print, may quote names and texts of a model's files.
"""

from __future__ import annotations

import asyncio
import logging

log = logging.getLogger(__name__)

MOST_LINE_BYTES = 4 * 1024


class Words(asyncio.Protocol):
    """One process's. `ended` is set when it has closed its stderr."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.pid = 0
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Log the lines that are whole, and the parts of one that has no end."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > MOST_LINE_BYTES:
            lines.append(rest[:MOST_LINE_BYTES])
            rest = rest[MOST_LINE_BYTES:]
        self._rest = rest
        for line in lines:
            self._say(line)

    def connection_lost(self, error: Exception | None) -> None:
        """Log what had no line end."""
        self._say(self._rest)
        self.ended.set()

    def _say(self, line: bytes) -> None:
        if text := line.decode("utf-8", "replace").expandtabs(4).rstrip():
            log.warning("engine %d: %s", self.pid, text)
