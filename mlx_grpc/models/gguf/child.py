"""Starts the GGUF import as a child process and turns its lines into progress."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from mlx_grpc.models.progress import ProgressReporter
from mlx_grpc.models.sources import ModelSourceError

# Raised when the folder that the import writes would differ: folders of other versions are imported again.
# 2: Q4_K was decoded wrongly; ends of a turn were only those that the metadata name.
IMPORT_VERSION = 2


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
    ) as child:
        assert child.stdout is not None
        try:
            last = _follow(child.stdout, f"importing {source.name}", progress)
        except BaseException:
            child.kill()
            raise
    kind, _, rest = last.partition(" ")
    if child.returncode and kind == "storage":
        raise OSError(rest)
    if child.returncode:
        raise ModelSourceError(rest if kind == "error" else _ending(source, child.returncode, last))


def _follow(lines: Iterable[str], label: str, progress: ProgressReporter) -> str:
    """Tells the child's progress, and returns its last other line."""
    last = ""
    for line in lines:
        kind, _, rest = line.strip().partition(" ")
        if kind == "progress":
            done, total = rest.split()
            progress.update(label, int(done), int(total))
        else:
            last = line.strip() or last
    return last


def _ending(source: Path, code: int, noise: str) -> str:
    if code == -signal.SIGKILL:
        return f"{source}: the import was killed, most likely for want of memory; free memory and try again"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{source}: the import ended with {how} ({noise}); the file may be damaged, download it again"
