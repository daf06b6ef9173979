"""Says how far a download or an import has come: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mlx_grpc.observe.text import escaped

_MIN_SECONDS_BETWEEN_LINES = 2.0


class ProgressReporter(Protocol):
    """What `resolve` tells while it works, one thread at a time; `close` may be called twice."""

    def update(self, label: str, done: int, total: int) -> None:
        """`done` of `total` bytes or steps of `label` are there; a new label starts a new bar."""

    def note(self, line: str) -> None:
        """One line worth reading."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class SilentProgress:
    """Says nothing."""

    def update(self, label: str, done: int, total: int) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def close(self) -> None:
        pass


class PlainProgress:
    """Lines for logs: the first and last of each label, and between them one each tenth, 2 s apart."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._label = ""
        self._tenth = -1
        self._last_line_seconds = 0.0

    def update(self, label: str, done: int, total: int) -> None:
        percent = min(100, 100 * done // total) if total > 0 else 0
        tenth = percent // 10
        is_new, is_end = label != self._label, tenth == 10
        if not is_new and tenth <= self._tenth:
            return
        now = self._now()
        if not is_new and not is_end and now - self._last_line_seconds < _MIN_SECONDS_BETWEEN_LINES:
            return
        self._label, self._tenth, self._last_line_seconds = label, tenth, now
        self.note(f"{label}: {percent}%")

    def note(self, line: str) -> None:
        print(escaped(line), file=self._stream, flush=True)

    def close(self) -> None:
        pass


class BarProgress:
    """One bar a label."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=console)
        self._task: TaskID | None = None
        self._label = ""

    def update(self, label: str, done: int, total: int) -> None:
        self._bars.start()
        if self._task is None or label != self._label:
            self._task, self._label = self._bars.add_task(escaped(label), total=total), label
        self._bars.update(self._task, completed=min(done, total), total=total)

    def note(self, line: str) -> None:
        self._bars.console.print(escaped(line), markup=False, highlight=False, emoji=False)

    def close(self) -> None:
        self._bars.stop()


def make_progress(stream: TextIO | None = None) -> ProgressReporter:
    """The reporter that fits `stream` (default: stderr)."""
    stream = sys.stderr if stream is None else stream
    console = Console(file=stream)
    return BarProgress(console) if console.is_terminal else PlainProgress(stream)
