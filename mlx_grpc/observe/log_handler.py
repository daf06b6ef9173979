"""Writes a log's lines, and in the place of those that are too many a count of them once a minute."""

from __future__ import annotations

import logging
import threading
import time
from typing import TextIO

from mlx_grpc.observe.log_limit import Kind, LeftOut, LogLimit

COUNT_SECONDS = 60.0
EXAMPLE_CHARACTERS = 100


class BoundedHandler(logging.StreamHandler[TextIO]):
    """To a stream, at most as much as `LogLimit` allows, or everything."""

    def __init__(self, stream: TextIO, bounded: bool = True) -> None:
        super().__init__(stream)
        self._limit = LogLimit(time.monotonic()) if bounded else None
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Under the handler's lock, as logging calls it."""
        try:
            text = self.format(record)
            if self._limit is None or self._admits(self._limit, record, text):
                self._write(text)
        except Exception:
            self.handleError(record)

    def count_left_out(self) -> None:
        """Log how many lines were left out, by their kinds; a timer does so a minute after the first of them."""
        self.acquire()
        try:
            self._timer = None
            for one in self._limit.take_left_out() if self._limit else ():
                self._write(self.format(_count_of(one)))
        finally:
            self.release()

    def close(self) -> None:
        """Nothing stays uncounted."""
        if self._timer:
            self._timer.cancel()
            self.count_left_out()
        super().close()

    def _admits(self, limit: LogLimit, record: logging.LogRecord, text: str) -> bool:
        kind = Kind(record.name, record.levelno, record.pathname, record.lineno, str(record.msg)[:EXAMPLE_CHARACTERS])
        size = len(text.encode("utf-8", "replace")) + 1
        if limit.admits(kind, size, record.levelno >= logging.WARNING, time.monotonic()):
            return True
        if self._timer is None:
            self._timer = threading.Timer(COUNT_SECONDS, self.count_left_out)
            self._timer.daemon = True
            self._timer.start()
        return False

    def _write(self, text: str) -> None:
        self.stream.write(text + self.terminator)
        self.flush()


def _count_of(one: LeftOut) -> logging.LogRecord:
    kind = one.kind
    message = "%d more lines like this were left out within a minute: %s"
    return logging.LogRecord(kind.logger, kind.level, kind.path, kind.line, message, (one.count, kind.example), None)
