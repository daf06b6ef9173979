"""For hostile tests over HTTP: a server in a process of its own that tells how it is, and attackers that keep to no
rule.

`python -m tests.hostile.helpers.http SETTINGS` is that server: its addresses are the first line that it prints, and
each line on its standard input is answered with one that says how it has been since the one before.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc import testing
from mlx_grpc.bounds.garbage import keep_for_good
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.observe.logs import set_up_logging
from tests.hostile.helpers.witness import Witness

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60.0
PROBE_SECONDS = 0.001
MIB = 2**20
LOADED_GAP_SECONDS = 0.1
"""A bound for the event loop on a machine whose caches others fill; QUIET_GAP_SECONDS is the promise."""
QUIET_GAP_SECONDS = 0.05
MOST_MIB = 150
"""Above idle, during any attack."""
ATTACKERS_NICENESS = 10
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def gap_bound_seconds(full_size: bool) -> float:
    """The longest that the event loop may be held: on a quiet machine, which `make prove` wants, the promise."""
    return QUIET_GAP_SECONDS if full_size else LOADED_GAP_SECONDS


@dataclass(frozen=True)
class Look:
    """How a server is. The gap is the longest time for which its event loop was held since the look before, in seconds
    of the processor: what a machine does beside, and attackers on it do, is not the loop's doing."""

    gap_seconds: float
    memory_mib: float
    peak_mib: float
    descriptors: int
    threads: int
    held_bytes: int
    engine_pid: int


class Victim:
    """A server in a process of its own, and its account of itself."""

    def __init__(self, log: Path, **settings: Any) -> None:
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.helpers.http", json.dumps(settings)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, log.read_text()[-2000:]
        self.addresses: dict[str, tuple[str, int]] = {
            name: (where.rpartition(":")[0], int(where.rpartition(":")[2])) for name, where in json.loads(line).items()
        }

    def look(self) -> Look:
        """How it is, and was since the last look."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-2000:]
        return Look(**json.loads(line))

    def until_at_most(self, memory_mib: float, seconds: float = 20.0) -> Look:
        """The first look at which it has no more memory than that and holds nothing; the last one when it never has."""
        end = time.monotonic() + seconds
        while (look := self.look()).memory_mib > memory_mib or look.held_bytes:
            if time.monotonic() > end:
                break
            time.sleep(0.25)
        return look

    def connect(self, port: str = "http") -> socket.socket:
        """A raw connection."""
        return socket.create_connection(self.addresses[port], timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._process.stdout.close()
            self._process.wait()


@contextmanager
def victim(folder: Path, **settings: Any) -> Iterator[Victim]:
    """A server until the end of the block."""
    found = Victim(folder / "log", **settings)
    try:
        post(found, json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).encode())
        found.look()  # what starting took, and what is loaded with the first call, is not an attack's doing
        yield found
    finally:
        found.close()


def watched(victim: Victim) -> Witness:
    """Another client, that asks for the server's health all the time."""
    return Witness(victim.addresses["admin"])


def head(path: str, *, length: int | None = None, method: str = "POST", **headers: str) -> bytes:
    """A request up to its body."""
    fields = {"host": "localhost", "content-type": "application/json", **headers}
    if length is not None:
        fields["content-length"] = str(length)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def post(victim: Victim, body: bytes, path: str = CHAT, port: str = "http") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to one call."""
    connection = http.client.HTTPConnection(*victim.addresses[port], timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read()
    finally:
        connection.close()


def closed_within(connection: socket.socket, seconds: float) -> tuple[float, bytes]:
    """After how many seconds the server has closed the connection, and what it said before. Fails if it has not."""
    began, said = time.monotonic(), b""
    connection.settimeout(seconds)
    try:
        while data := connection.recv(65536):
            said += data
    except ConnectionError:
        pass
    return time.monotonic() - began, said


@contextmanager
def connections(victim: Victim, count: int, port: str = "http") -> Iterator[Sequence[socket.socket]]:
    """So many raw connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(victim.connect(port)) for _ in range(count)]


def send_all(connection: socket.socket, data: bytes) -> int:
    """How many bytes went out until all had, or the server closed the connection or took no more for a while."""
    connection.settimeout(3.0)
    sent = 0
    try:
        while sent < len(data):
            sent += connection.send(data[sent : sent + 65536])
    except OSError:
        pass
    return sent


def in_threads(*work: Any) -> None:
    """All at once; returns when all have ended. They leave the processors to the server: attackers have their own."""

    def run(one: Any) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), ATTACKERS_NICENESS)
        one()

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# The server's side.


async def _serve(settings: dict[str, Any]) -> None:
    script = Script(**settings.pop("script", {}))
    async with testing.serve(script, engine="process", **settings) as server:
        keep_for_good()  # as `mlx-grpc serve` does
        print(json.dumps(server.server.addresses), flush=True)  # noqa: T201
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        gaps = _Gaps()
        probing = asyncio.create_task(gaps.probe())
        try:
            while await reader.readline():
                print(json.dumps(_look(server, gaps.take())), flush=True)  # noqa: T201
        finally:
            probing.cancel()


class _Gaps:
    def __init__(self) -> None:
        self._longest = 0.0

    async def probe(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(PROBE_SECONDS)
            self._longest = max(self._longest, time.thread_time() - began)

    def take(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest


def _look(server: testing.LocalServer, gap_seconds: float) -> dict[str, Any]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    look = {
        "gap_seconds": gap_seconds,
        "memory_mib": int(status["VmRSS"].split()[0]) / 1024,
        "peak_mib": int(status["VmHWM"].split()[0]) / 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "held_bytes": server.server.intake.held_bytes if hasattr(server.server, "intake") else 0,
        "engine_pid": server.engine_pid,
    }
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    return look


if __name__ == "__main__":
    set_up_logging("info")
    asyncio.run(_serve(json.loads(sys.argv[1])))
