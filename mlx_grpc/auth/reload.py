"""Values that are made from files, and made again when the files change."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from mlx_grpc.auth.failure import AuthError

log = logging.getLogger(__name__)
Value = TypeVar("Value")

SETTLED_SECONDS = 2.0
"""File systems keep time in steps: a file that changed just before it was read may change again and look the same."""
ATTEMPTS = 10

_Marks = tuple[tuple[int, ...], ...]


class FromFiles(Generic[Value]):
    """What `read` makes of the files. Threads may share it.

    A change that cannot be read is logged once and leaves the last good value: half-written files take nothing down.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], Value]) -> None:
        """Reads at once. Raises AuthError."""
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._marks: _Marks = ()
        self._settled = False
        self._complaint = ""
        self._value = self._read_whole()

    def current(self) -> Value:
        """The value of the files as they are now, or were when they were last in order."""
        with self._lock:
            if not self._settled or self._look() != self._marks:
                try:
                    self._value = self._read_whole()
                    self._complaint = ""
                except AuthError as error:
                    self._complain(str(error))
            return self._value

    def _read_whole(self) -> Value:
        """Read until nothing changed meanwhile: a key belongs to its certificate."""
        for _ in range(ATTEMPTS):
            self._marks = self._look()
            changed_nanoseconds = max((max(mark) for mark in self._marks if mark), default=0)
            self._settled = time.time_ns() - changed_nanoseconds > SETTLED_SECONDS * 1e9
            value = self._read()
            if self._look() == self._marks:
                return value
        raise AuthError(f"{self._paths[0]} changes all the time; write it elsewhere and move it into its place")

    def _look(self) -> _Marks:
        return tuple(_mark(path) for path in self._paths)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.error("what was read before stays in force: %s", text)


def read_bytes(path: Path, what: str, limit_bytes: int) -> bytes:
    """The file's content. Raises AuthError in terms of `what` the file is."""
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise AuthError(f"{what} {path}: {error.strerror or error}") from None
    if len(content) > limit_bytes:
        raise AuthError(f"{what} {path} has more than {limit_bytes} bytes")
    return content


def _mark(path: Path) -> tuple[int, ...]:
    """Differs when the file does; empty for a file that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
