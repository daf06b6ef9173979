"""Starts the GGUF import as a child process and turns its lines into progress."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from mlx_grpc.models.limits import ENVIRONMENT
from mlx_grpc.models.progress import ProgressReporter
from mlx_grpc.models.sources import ModelSourceError

# Raised when the folder that the import writes would differ: folders of other versions are imported again.
# 2: Q4_K was decoded wrongly; ends of a turn were only those that the metadata name.
IMPORT_VERSION = 2
SILENT_SECONDS = 600.0
"""A child that has told nothing for so long is ended: each tensor is a line."""
_LOOK_SECONDS = 0.5


def run_import(source: Path, destination: Path, progress: ProgressReporter) -> None:
    """Imports `source` into the folder `destination`.

    Raises ModelSourceError, or OSError where it could not be stored.
    """
    arguments = ["-m", "mlx_grpc.models.gguf", str(source.absolute()), str(destination.absolute())]
    # stderr joins stdout, so that a full pipe of warnings cannot block the child while nobody reads it.
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **ENVIRONMENT},
    ) as child:
        assert child.stdout is not None
        watch = _Watch(child)
        try:
            last = _follow(child.stdout, f"importing {source.name}", progress, watch)
        except BaseException:
            child.kill()
            raise
        finally:
            watch.end()
    if watch.has_killed:
        raise ModelSourceError(f"{source}: the import told nothing for {SILENT_SECONDS:g} s and was ended; try again")
    kind, _, rest = last.partition(" ")
    if child.returncode and kind == "storage":
        raise OSError(rest)
    if child.returncode:
        raise ModelSourceError(rest if kind == "error" else _ending(source, child.returncode, last))


class _Watch:
    """Ends a child that tells nothing."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self._told_seconds = time.monotonic()
        self._ended = threading.Event()
        self.has_killed = False
        threading.Thread(target=self._watch, name="import watch", daemon=True).start()

    def told(self) -> None:
        """Wait anew."""
        self._told_seconds = time.monotonic()

    def end(self) -> None:
        """No longer."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            if time.monotonic() - self._told_seconds > SILENT_SECONDS:
                self.has_killed = True
                self._child.kill()
                return


def _follow(lines: Iterable[str], label: str, progress: ProgressReporter, watch: _Watch) -> str:
    """Tells the child's progress, and returns its last other line."""
    last = ""
    for line in lines:
        watch.told()
        kind, _, rest = line.strip().partition(" ")
        if kind == "progress":
            done, total = rest.split()
            progress.update(label, int(done), int(total))
        else:
            last = line.strip() or last
    return last


def _ending(source: Path, code: int, noise: str) -> str:
    if code == -signal.SIGXCPU:
        return f"{source}: the import took more time than a file of this size needs; the file may be damaged"
    if code == -signal.SIGKILL:
        return f"{source}: the import was killed, most likely for want of memory; free memory and try again"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{source}: the import ended with {how} ({noise}); the file may be damaged, download it again"
