"""The server's end of a process that runs a template: started, asked, watched, and ended when it takes too long.

Blocking, and used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mlx_grpc.service.intake.templates import frames
from mlx_grpc.service.intake.templates.frames import BadFrame, Message
from mlx_grpc.service.intake.templates.limits import OUT_OF_TIME
from mlx_grpc.service.intake.templates.size import Size

PROGRAM = "mlx_grpc.service.intake.templates.child"
START_SECONDS = 30.0
"""To import what it needs, which takes a tenth of a second on an idle machine."""
PATIENCE = 4.0
"""A process that has had so many times its processor's time on the clock is stopped, or waits for what never comes."""
LEFT_SECONDS = 0.1
"""What a rendering may still take when nobody wants it any more. Another process would take as long to start."""
_LOOK_SECONDS = 0.05
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_TIME", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""Of the environment: no token or password is there for a template that finds a way out of its sandbox."""


class Limits(NamedTuple):
    """What one template may take: seconds of the processor, and bytes of memory above an idle process."""

    probe_seconds: float = 5.0
    """For its compilation and all trial renderings. Published templates take some 50 ms."""
    render_seconds: float = 1.0
    """For one chat."""
    memory_bytes: int = 256 * 1024 * 1024


class Stopped(Exception):
    """It was ended, or has ended itself, at a limit. One line says which."""


class Lost(Exception):
    """It ended, or said what is not a message, and no limit was the reason."""


class TemplateProcess:
    """One process. After any exception it is gone."""

    def __init__(self, first: Message, limits: Limits) -> None:
        """Start it with its first message. Raises OSError where no process can be had."""
        self._limits = limits
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=_environment(),
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._to, self._from = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._size = Size(self._child.pid, limits.memory_bytes)
        told = {**first.fields, "memory_bytes": limits.memory_bytes, "seconds": limits.probe_seconds}
        head, *texts = [memoryview(part) for part in frames.pack(told, first.texts)]
        with contextlib.suppress(OSError):  # what the pipe takes; whatever is wrong is seen when it is asked
            head = head[os.write(self._to, head) :]
        self._unsent: list[memoryview | bytes] = [head, *texts]
        self._is_introduced = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def introduction(self, has_left: Callable[[], bool]) -> Message:
        """Its answer to the first message; an empty one when it was given before. Raises Stopped or Lost."""
        if self._is_introduced:
            return Message({}, [])
        seconds = START_SECONDS + PATIENCE * self._limits.probe_seconds
        answer = self._exchange(self._unsent, seconds, self._limits.probe_seconds, has_left)
        self._is_introduced = True
        self._size.watch()
        return answer

    def ask(self, request: Message, has_left: Callable[[], bool]) -> Message:
        """Its answer. Raises Stopped or Lost, and BadFrame for a request that is too long, without harm."""
        seconds = self._limits.render_seconds
        frame: list[memoryview | bytes] = [*frames.pack({**request.fields, "seconds": seconds}, request.texts)]
        self.introduction(has_left)
        return self._exchange(frame, PATIENCE * seconds, seconds, has_left)

    def kill(self) -> None:
        """End it from another thread: the one that waits for its answer sees it lost, and closes it."""
        self._child.kill()

    def close(self) -> None:
        """End it, and see it gone."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _exchange(
        self, frame: list[memoryview | bytes], wait_seconds: float, seconds: float, has_left: Callable[[], bool]
    ) -> Message:
        """Send the parts, each forgotten when it is sent, and receive the answer."""
        clock = _Clock(time.monotonic() + wait_seconds, has_left)
        try:
            while frame:
                self._send(memoryview(frame.pop(0)), clock)
            length = frames.body_bytes(self._receive(frames.HEADER_BYTES, clock))
            return frames.unpack(self._receive(length, clock))
        except TimeoutError:
            self.close()
            raise Stopped(f"it takes longer than {seconds:g} s") from None
        except _TooLarge:
            self.close()
            raise Stopped(f"it takes more than {self._limits.memory_bytes // 1024**2} MiB of memory") from None
        except (OSError, EOFError, BadFrame) as error:
            self.close()
            code = self._child.returncode
            if code == -OUT_OF_TIME:
                raise Stopped(f"it takes longer than {seconds:g} s") from None
            raise Lost(str(error) if isinstance(error, BadFrame) else _ending(code)) from error
        except BaseException:
            self.close()
            raise

    def _send(self, part: memoryview, clock: _Clock) -> None:
        while part:
            try:
                part = part[os.write(self._to, part) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, clock)

    def _receive(self, count: int, clock: _Clock) -> bytearray:
        received = bytearray(count)
        left = memoryview(received)
        while left:
            try:
                got = os.readv(self._from, [left])
            except BlockingIOError:
                self._wait(self._from, select.POLLIN, clock)
                continue
            if not got:
                raise EOFError
            left = left[got:]
        return received

    def _wait(self, descriptor: int, event: int, clock: _Clock) -> None:
        """Returns when the pipe is ready, or closed. Raises TimeoutError, or _TooLarge."""
        poll = select.poll()
        poll.register(descriptor, event)
        while not poll.poll(1000 * min(_LOOK_SECONDS, clock.left_seconds())):
            if self._size.is_too_large():
                raise _TooLarge


class _TooLarge(Exception):
    """It has more memory than it may."""


class _Clock:
    """When to give up: at a moment, or soon after the caller has left."""

    def __init__(self, end_seconds: float, has_left: Callable[[], bool]) -> None:
        self._end_seconds = end_seconds
        self._has_left = has_left
        self._noticed = False

    def left_seconds(self) -> float:
        """More than 0. Raises TimeoutError."""
        now_seconds = time.monotonic()
        if not self._noticed and self._has_left():
            self._noticed = True
            self._end_seconds = min(self._end_seconds, now_seconds + LEFT_SECONDS)
        left_seconds = self._end_seconds - now_seconds
        if left_seconds <= 0:
            raise TimeoutError
        return left_seconds


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _environment() -> dict[str, str]:
    """The child finds this very package first, also where it is not installed."""
    package_parent = str(Path(__file__).resolve().parents[4])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
