"""A server in a process of its own under attack, and somebody else who uses it meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_grpc.client import Client, HealthStatus
from tests.helpers.serve import Serve, script, started

PATIENCE_SECONDS = 20.0
LOOK_EVERY_SECONDS = 0.05
STEP_SECONDS = 0.02
LOG_BYTES_A_MINUTE = 100_000


class Attacked:
    """`mlx-grpc serve`, with what it can be measured by."""

    def __init__(self, serve: Serve, addresses: dict[str, str]) -> None:
        self.serve = serve
        self.addresses = addresses

    @property
    def pid(self) -> int:
        """The server's own; engines are its children."""
        return self.serve.process.pid

    @property
    def log(self) -> list[str]:
        """The lines so far."""
        return self.serve.errors

    def log_bytes(self) -> int:
        """How much the log has grown since the start."""
        return sum(len(line.encode()) + 1 for line in list(self.log))

    def descriptors(self) -> int:
        """How many the server has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        """How many the server has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))


@contextmanager
def attacked(folder: Path, *flags: str, open_files: int | None = None) -> Iterator[Attacked]:
    """A server of a scripted model that says a token each STEP_SECONDS."""
    ready = folder / "ready.json"
    model = script(step_seconds=STEP_SECONDS, context_length=200_000)
    with started("--model", model, "--ready-file", str(ready), *flags, open_files=open_files) as serve:
        serve.serving_line()
        yield Attacked(serve, json.loads(ready.read_text()))


class Bystander:
    """Somebody with one connection: a stream that goes on, and health checks. Remembers the longest gaps."""

    def __init__(self, target: str, token: str | None = None) -> None:
        self._client = Client(target, token=token, retry=False, options={"grpc.use_local_subchannel_pool": 1})
        self._ended = threading.Event()
        self._flowing = threading.Event()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._check)]
        self.tokens = 0
        self.longest_gap_seconds = 0.0
        self.longest_check_seconds = 0.0
        self.errors: list[Exception] = []

    def __enter__(self) -> Bystander:
        for thread in self._threads:
            thread.start()
        assert self._flowing.wait(PATIENCE_SECONDS), self.errors
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _read(self) -> None:
        try:
            with self._client.stream("go on", max_tokens=100_000, ignore_eos=True) as stream:
                last = time.monotonic()
                for _ in stream.text():
                    now = time.monotonic()
                    if self._flowing.is_set():
                        self.longest_gap_seconds = max(self.longest_gap_seconds, now - last)
                    self._flowing.set()
                    self.tokens += 1
                    last = now
                    if self._ended.is_set():
                        return
            raise AssertionError("the stream ended")
        except Exception as error:
            self.errors.append(error)

    def _check(self) -> None:
        while not self._ended.wait(LOOK_EVERY_SECONDS):
            began = time.monotonic()
            try:
                assert self._client.health(timeout_seconds=PATIENCE_SECONDS) is HealthStatus.SERVING
            except Exception as error:
                self.errors.append(error)
            self.longest_check_seconds = max(self.longest_check_seconds, time.monotonic() - began)


@contextmanager
def silent(address: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing. Some may be closed by the server at once."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(count)]


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not closed it; what it has said so far is read."""
    connection.setblocking(False)
    try:
        while data := connection.recv(65536):
            assert data
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def eventually(what: object, seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether the callable says yes within the time."""
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_EVERY_SECONDS)
    return True
