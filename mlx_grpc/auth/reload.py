"""Values that are made from files, and made again when the files change."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.bounds.descriptors import Spare

log = logging.getLogger(__name__)
Value = TypeVar("Value")

SETTLED_SECONDS = 2.0
"""File systems keep time in steps: a file that changed just before it was read may change again and look the same."""
RETRY_SECONDS = 1.0
"""Files that could not be read, and look as they did then, are read again after this."""
COMPLAIN_SECONDS = 300.0
"""As long as files cannot be read, the log says so this often."""
ATTEMPTS = 10

_Marks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last reading failed: what the files looked like before it, and when it was."""

    marks: _Marks
    seconds: float


class FromFiles(Generic[Value]):
    """What `read` makes of the files. Threads may share it.

    A change that cannot be read leaves the last good value: half-written files take nothing down. It is logged, and the
    reading is tried again until it succeeds, for what stood in its way may not be in the files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], Value],
        spare: Spare | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads at once. Raises AuthError. `spare` lets the files be read when no descriptor is free."""
        self._paths = tuple(paths)
        self._read = read
        self._spare = spare or Spare()
        self._now = now
        self._lock = threading.Lock()
        self._marks: _Marks = ()
        self._settled = False
        self._failure: _Failure | None = None
        self._complaint = ""
        self._complained_seconds = 0.0
        self._value = self._read_whole()

    def current(self) -> Value:
        """The value of the files as they are now, or were when they were last in order."""
        with self._lock:
            marks = self._look()
            if self._is_due(marks):
                self._read_again(marks)
            return self._value

    def refresh(self) -> None:
        """Read the files, whatever they look like: not every file system tells of every change."""
        with self._lock:
            self._read_again(self._look())

    def _is_due(self, marks: _Marks) -> bool:
        if self._failure:
            return marks != self._failure.marks or self._now() - self._failure.seconds >= RETRY_SECONDS
        return not self._settled or marks != self._marks

    def _read_again(self, marks: _Marks) -> None:
        try:
            value = self._read_whole()
        except Exception as error:  # whatever it is, the next reading may go well
            self._failure = _Failure(marks, self._now())
            self._complain(str(error) if isinstance(error, AuthError) else f"{type(error).__name__}: {error}")
            return
        if value != self._value:  # who holds the value sees by its identity whether anything changed
            self._value = value
        if self._failure:
            self._failure, self._complaint = None, ""
            log.info("%s is read again", self._paths[0])

    def _read_whole(self) -> Value:
        """Read until nothing changed meanwhile: a key belongs to its certificate. Raises AuthError."""
        for _ in range(ATTEMPTS):
            marks = self._look()
            with self._spare.lent():
                value = self._read()
            if self._look() == marks:
                # Noted only now: a reading that failed has seen nothing.
                changed_nanoseconds = max(mark[0] for mark in marks)
                self._marks = marks
                self._settled = time.time_ns() - changed_nanoseconds > SETTLED_SECONDS * 1e9
                return value
        raise AuthError(f"{self._paths[0]} changes all the time; write it elsewhere and move it into its place")

    def _look(self) -> _Marks:
        return tuple(_mark(path) for path in self._paths)

    def _complain(self, text: str) -> None:
        if text != self._complaint or self._now() - self._complained_seconds >= COMPLAIN_SECONDS:
            self._complaint, self._complained_seconds = text, self._now()
            log.error("what was read before stays in force: %s", text)


def read_bytes(path: Path, what: str, limit_bytes: int) -> bytes:
    """The file's content. Raises AuthError in terms of `what` the file is."""
    try:
        # Without O_NONBLOCK, to open a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                raise AuthError(f"{what} {path} is a pipe, which can be read only once; give a file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(limit_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise AuthError(f"{what} {path}: {error.strerror or error}") from None
    if len(content) > limit_bytes:
        raise AuthError(f"{what} {path} has more than {limit_bytes} bytes")
    return content


def _mark(path: Path) -> tuple[int, ...]:
    """Differs when the file does. First the time of its last change, which nobody can set; then all else that tells.

    The negative errno where it cannot be looked at.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        return (-(error.errno or errno.EIO),)
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
