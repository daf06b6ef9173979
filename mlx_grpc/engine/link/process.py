"""A worker in a child process, as a server has it: started, sent messages, watched to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from mlx_grpc.engine import messages
from mlx_grpc.engine.link.frames import FrameReader
from mlx_grpc.engine.link.interface import OnLost, OnMessage
from mlx_grpc.engine.link.words import Words
from mlx_grpc.engine.messages import Close, ToWorker

CLOSE_GRACE_SECONDS = 5.0
LAST_WORDS_SECONDS = 0.25
"""For what the child wrote to stderr before its end; a process that it started may keep that open."""
WORKER_PROGRAM = "mlx_grpc.engine.worker"


class ProcessLink:
    """A worker in a child process of its own, in a session of its own: a terminal's Ctrl-C is the server's alone."""

    def __init__(self, on_message: OnMessage, on_lost: OnLost) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._process: asyncio.subprocess.Process | None = None
        self._to_child: asyncio.WriteTransport | None = None
        self._from_child: asyncio.ReadTransport | None = None
        self._from_stderr: asyncio.ReadTransport | None = None
        self._words = Words()
        self._pipe_closed = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False
        self._broken = ""

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child. Raises OSError when no process can be had."""
        pipes = _open_pipes(3)
        (child_in, to_child), (from_child, child_out), (from_stderr, child_stderr) = pipes
        command = [sys.executable, "-P", "-m", WORKER_PROGRAM]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *("--in-fd", str(child_in), "--out-fd", str(child_out)),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=child_stderr,
                pass_fds=(child_in, child_out),
                start_new_session=True,
                env=_child_environment(),
            )
        except BaseException:
            for descriptor in (to_child, from_child, from_stderr):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (child_in, child_out, child_stderr):
                os.close(descriptor)
        self._words.pid = self._process.pid
        loop = asyncio.get_running_loop()
        self._to_child, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(to_child, "wb", 0))
        self._from_child, _ = await loop.connect_read_pipe(
            lambda: FrameReader(self._on_message, self._fail, self._pipe_closed),
            os.fdopen(from_child, "rb", 0),
        )
        self._from_stderr, _ = await loop.connect_read_pipe(lambda: self._words, os.fdopen(from_stderr, "rb", 0))
        self._watcher = asyncio.create_task(self._watch(self._process), name=f"engine {self._process.pid}")

    def send(self, message: ToWorker) -> None:
        """Write the frame; the transport keeps what the pipe does not take at once (bounded by the rows admitted)."""
        if self._to_child and not self._to_child.is_closing():
            self._to_child.write(messages.encode(message))

    def kill(self) -> None:
        """SIGKILL: a stopped or hung child must go, too."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    async def close(self) -> None:
        """Ask, wait, kill; returns when the child has been reaped."""
        self._closing = True
        self.send(Close())
        if self._to_child:
            self._to_child.close()
        if self._watcher:
            try:
                await asyncio.wait_for(asyncio.shield(self._watcher), CLOSE_GRACE_SECONDS)
            except TimeoutError:
                self.kill()
                await self._watcher

    def _fail(self, why: str) -> None:
        self._broken = why
        self.kill()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the child's end, deliver what it had sent before, then tell that it is lost."""
        returncode = await process.wait()
        await self._pipe_closed.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._words.ended.wait(), LAST_WORDS_SECONDS)
        for transport in (self._to_child, self._from_child, self._from_stderr):
            if transport:
                transport.close()
        if not self._closing:
            self._on_lost(self._broken or describe_exit(returncode))


def _open_pipes(count: int) -> list[tuple[int, int]]:
    """All of them, or none. Raises OSError."""
    pipes: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            pipes.append(os.pipe())
    except OSError:
        for descriptor in (end for pipe in pipes for end in pipe):
            os.close(descriptor)
        raise
    return pipes


def describe_exit(returncode: int) -> str:
    """How a process ended, for a person: "killed by SIGKILL", "exit code 1"."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def _child_environment() -> dict[str, str]:
    """The child finds this very package first, also where it is not installed; `-P` keeps the working folder out."""
    package_parent = str(Path(__file__).resolve().parents[3])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
