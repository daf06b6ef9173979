"""The server's end of the engine boundary: starts a worker, sends it messages, and tells what comes back.

`ProcessLink` runs the worker in a child process, as a server does; `ThreadLink` in a thread of this one, as tests may.
Both belong to the event loop that started them, call their `on_message` and `on_lost` in it, and never from elsewhere.
A link is used once: when the worker is lost, its owner starts another.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from mlx_grpc.engine import messages, worker
from mlx_grpc.engine.messages import FRAME_HEADER_BYTES, MAX_FRAME_BYTES, Close, FromWorker, ToWorker
from mlx_grpc.engine.protocol import OpenEngine

CLOSE_GRACE_SECONDS = 5.0
OnMessage = Callable[[FromWorker], None]
OnLost = Callable[[str], None]


class Link(Protocol):
    """What the service knows of a worker."""

    @property
    def pid(self) -> int | None:
        """The child's process id; None for a worker in this process."""

    async def start(self) -> None:
        """Start the worker. It waits for its Load message."""

    def send(self, message: ToWorker) -> None:
        """Send, without waiting. Nothing is sent to a worker that is lost: `on_lost` has told, or will."""

    def kill(self) -> None:
        """End the worker now, as a crash would: `on_lost` follows."""

    async def close(self) -> None:
        """End the worker and see it gone; `on_lost` is not called for it."""


StartLink = Callable[[OnMessage, OnLost], Link]


class FrameReader(asyncio.Protocol):
    """Cuts what comes from the pipe into messages."""

    def __init__(self, on_message: OnMessage, on_broken: Callable[[str], None], closed: asyncio.Event) -> None:
        self._on_message = on_message
        self._on_broken = on_broken
        self._closed = closed
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Deliver every whole frame. A frame that cannot be is the end of this worker."""
        self._buffer += data
        try:
            while (body := self._next_body()) is not None:
                self._on_message(messages.decode_from_worker(body))
        except (ValueError, msgspec.MsgspecError) as error:
            self._buffer.clear()
            self._on_broken(f"sent what is no message: {error}")

    def _next_body(self) -> bytes | None:
        if len(self._buffer) < FRAME_HEADER_BYTES:
            return None
        end = FRAME_HEADER_BYTES + int.from_bytes(self._buffer[:FRAME_HEADER_BYTES], "big")
        if end > FRAME_HEADER_BYTES + MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {end} bytes")
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[FRAME_HEADER_BYTES:end])
        del self._buffer[:end]
        return body

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker closed its end."""
        self._closed.set()


class ProcessLink:
    """A worker in a child process of its own, in a session of its own: a terminal's Ctrl-C is the server's alone."""

    def __init__(self, on_message: OnMessage, on_lost: OnLost) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._process: asyncio.subprocess.Process | None = None
        self._to_child: asyncio.WriteTransport | None = None
        self._from_child: asyncio.ReadTransport | None = None
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
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        command = [sys.executable, "-P", "-m", worker.__name__]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *("--in-fd", str(child_in), "--out-fd", str(child_out)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(child_in, child_out),
                start_new_session=True,
                env=_child_environment(),
            )
        except BaseException:
            os.close(to_child)
            os.close(from_child)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        loop = asyncio.get_running_loop()
        self._to_child, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(to_child, "wb", 0))
        self._from_child, _ = await loop.connect_read_pipe(
            lambda: FrameReader(self._on_message, self._fail, self._pipe_closed),
            os.fdopen(from_child, "rb", 0),
        )
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
        for transport in (self._to_child, self._from_child):
            if transport:
                transport.close()
        if not self._closing:
            self._on_lost(self._broken or describe_exit(returncode))


class ThreadLink:
    """A worker in a thread. `open_engine` is the worker's own unless a test brings another."""

    def __init__(self, on_message: OnMessage, on_lost: OnLost, open_engine: OpenEngine = worker.open_engine) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._open_engine = open_engine
        self._inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._ended = asyncio.Event()
        self._closing = False

    @property
    def pid(self) -> int | None:
        """None: there is no child."""
        return None

    async def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, message: ToWorker) -> None:
        """Put it into the inbox."""
        self._inbox.put(message)

    def kill(self) -> None:
        """A thread cannot be killed: it ends after its step."""
        self._inbox.put(Close())

    async def close(self) -> None:
        """Returns when the thread has ended."""
        self._closing = True
        self._inbox.put(Close())
        if self._thread.ident is not None:
            await self._ended.wait()
            self._thread.join()

    def _run(self) -> None:
        why = "its thread ended"
        try:
            worker.run(self._inbox, lambda message: self._in_loop(self._on_message, message), self._open_engine)
        except Exception as error:  # whatever a step raises is the engine's end, as it would be a child's
            why = f"its thread raised {type(error).__name__}: {error}"
        self._in_loop(self._end, why)

    def _in_loop(self, call: Callable[..., None], argument: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, argument)

    def _end(self, why: str) -> None:
        self._ended.set()
        if not self._closing:
            self._on_lost(why)


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
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
