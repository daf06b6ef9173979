"""`python -m mlx_grpc serve` in a process of its own, as people run it."""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0


class Serve:
    """A server's process; its lines are read as they come."""

    def __init__(
        self,
        arguments: Sequence[str],
        largest_file_bytes: int | None = None,
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        open_files: int | None = None,
    ) -> None:
        wanted = {resource.RLIMIT_FSIZE: largest_file_bytes, resource.RLIMIT_NOFILE: open_files}
        limits = {number: limit for number, limit in wanted.items() if limit is not None}
        ports = [f"--{name}-port=0" for name in ("grpc", "http", "admin")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlx_grpc", "serve", *ports, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(_set_limits, limits) if limits else None,
        )
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()

    def serving_line(self) -> str:
        """The line that says SERVING; fails with what was said instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "SERVING" in line, [line, *self.errors]
        return line

    @property
    def target(self) -> str:
        """Where gRPC is, read from the SERVING line."""
        return self.serving_line().split("gRPC on ")[1].split(",")[0].strip()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit code, when it has ended and all its lines are read."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return code

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:  # not all at the end: tests look at them meanwhile
            self.errors.append(line.rstrip("\n"))


def _set_limits(limits: Mapping[int, int]) -> None:
    """In the child: a write past the limit of a file's size fails as one to a full disk does."""
    for number, limit in limits.items():
        resource.setrlimit(number, (limit, limit))


@contextmanager
def started(
    *arguments: str,
    largest_file_bytes: int | None = None,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    open_files: int | None = None,
) -> Iterator[Serve]:
    """A server until the end of the block, which kills what is left of it. It is started in `folder`."""
    serve = Serve(arguments, largest_file_bytes, folder, environment, open_files)
    try:
        yield serve
    finally:
        if serve.process.poll() is None:
            serve.process.kill()
        serve.ended()
        assert serve.process.stdout is not None
        assert serve.process.stderr is not None
        serve.process.stdout.close()
        serve.process.stderr.close()


def script(**settings: object) -> str:
    """A `--model` that is a script."""
    return f"scripted=script:{json.dumps(settings)}"


def engines_of(server_pid: int) -> list[int]:
    """The processes below a server's (engines are its only children)."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return [pid for pid, parent in pairs if parent == server_pid]


def lives(pid: int) -> bool:
    """Whether there is such a process. One that ended and that nobody has reaped counts as gone."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(listed.strip()) and not listed.startswith("Z")


TERM, INT = signal.SIGTERM, signal.SIGINT
