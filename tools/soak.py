"""Loads a server for a while, breaks its engine now and then, and draws what memory and latency did.

    python tools/soak.py --minutes 30 --picture docs/soak.png

The server is `mlx-grpc serve` in a process of its own, with the scripted model unless --model names another. Clients
stream at once, cancel, leave and come back; every --kill-seconds the engine is killed. Exit code 0: no stream failed,
the server's process is the same, nothing waits or runs at the end, and memory has not grown by more than a twentieth
since the first fifth of the time. The picture needs matplotlib (`pip install matplotlib`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_grpc.client import AsyncClient
from mlx_grpc.errors import MlxGrpcError, QueueFull, Unavailable

MODEL = 'script:{"step_seconds": 0.005}'
PROMPTS = [f"{number} " + "tell me about the people and their water " * (number % 7) for number in range(50)]
MAX_TOKENS = (1, 8, 32, 96)
LEAVE_SHARE = 0.2
"""Streams that are left before their end."""
ALLOWED_GROWTH = 1.05
WARM_SHARE = 0.2
"""The part of the time after which memory counts as settled."""


@dataclass
class Seen:
    """What came of it. Seconds since the start."""

    samples: list[dict[str, float]] = field(default_factory=list)
    first_tokens: list[tuple[float, float]] = field(default_factory=list)
    """When a stream began, and how long its first token took."""
    kills: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    same_process: bool = True
    left_over: int = 0

    def growth(self) -> float:
        """The server's memory in the last fifth of the time, against what it was when it had settled."""
        sizes = [sample["server_bytes"] for sample in self.samples]
        part = max(1, round(len(sizes) * WARM_SHARE))
        settled, last = sizes[part : 2 * part] or sizes, sizes[-part:]
        return _median(last) / _median(settled) if sizes else 1.0

    def problems(self) -> list[str]:
        """In words; none is good."""
        failed = {name: count for name, count in self.ends.items() if name not in ("finished", "left", "refused")}
        found = [f"streams failed: {failed}"] if failed else []
        found += [] if self.same_process else ["the server's process is another"]
        found += [f"{self.left_over} calls were left over"] if self.left_over else []
        growth = self.growth()
        return found + ([f"memory grew by {growth - 1:.1%}"] if growth > ALLOWED_GROWTH else [])


class Soak:
    """One run: so many clients for so long."""

    def __init__(self, clients: int, seconds: float, kill_seconds: float) -> None:
        self._clients = clients
        self._seconds = seconds
        self._kill_seconds = kill_seconds
        self._began = 0.0
        self.seen = Seen()

    async def run(self, model: str, folder: Path) -> Seen:
        """Start the server, load it, break it, and look at it."""
        async with _serving(model, folder) as (target, admin, process):
            self._began = time.monotonic()
            background = [asyncio.create_task(self._watch(admin)), asyncio.create_task(self._break(admin))]
            await asyncio.gather(*(self._client(target, number) for number in range(self._clients)))
            for task in background:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            status = await asyncio.to_thread(_status, admin)
            self.seen.left_over = status["running_count"] + status["queue_depth"]
            self.seen.same_process = process.returncode is None and status["pid"] == process.pid
        return self.seen

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _client(self, target: str, number: int) -> None:
        dice = random.Random(number)
        async with AsyncClient(target) as client:
            while self._now < self._seconds:
                try:
                    self.seen.ends[await self._stream(client, dice)] += 1
                except (QueueFull, Unavailable):  # what a full queue or a restarting engine tells new calls
                    self.seen.ends["refused"] += 1
                    await asyncio.sleep(0.2)
                except MlxGrpcError as error:
                    self.seen.ends[error.reason or error.code] += 1

    async def _stream(self, client: AsyncClient, dice: random.Random) -> str:
        leaves = dice.random() < LEAVE_SHARE
        began = self._now
        first = True
        stream = client.stream(dice.choice(PROMPTS), max_tokens=dice.choice(MAX_TOKENS), seed=dice.randrange(1000))
        async with stream:
            async for _ in stream.text():
                if first:
                    self.seen.first_tokens.append((began, self._now - began))
                    first = False
                if leaves:
                    return "left"
        return "finished"

    async def _watch(self, admin: str) -> None:
        while True:
            status = await asyncio.to_thread(_status, admin)
            engine_bytes = status["models"][0]["engine_memory_bytes"]
            self.seen.samples.append(
                {
                    "seconds": self._now,
                    "server_bytes": float(status["memory_bytes"] or 0),
                    "engine_bytes": float(engine_bytes) if engine_bytes else float("nan"),
                    "running": float(status["running_count"]),
                    "tokens_per_second": float(status["tokens_per_second"]),
                }
            )
            await asyncio.sleep(max(0.5, self._seconds / 600))

    async def _break(self, admin: str) -> None:
        while self._kill_seconds:
            await asyncio.sleep(self._kill_seconds)
            status = await asyncio.to_thread(_status, admin)
            if pid := status["models"][0]["engine_pid"]:
                self.seen.kills.append(self._now)
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def _serving(model: str, folder: Path) -> AsyncIterator[tuple[str, str, asyncio.subprocess.Process]]:
    ready_file = folder / "ready.json"
    ports = [word for kind in ("grpc", "http", "admin") for word in (f"--{kind}-port", "0")]
    command = [
        "-m",
        "mlx_grpc",
        "serve",
        "--model",
        model,
        "--ready-file",
        str(ready_file),
        "--log-level",
        "error",
        *ports,
    ]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=subprocess.DEVNULL)
    try:
        while not ready_file.exists():
            if process.returncode is not None:
                raise SystemExit(f"the server ended with {process.returncode}")
            await asyncio.sleep(0.05)
        facts = json.loads(ready_file.read_text())
        yield facts["grpc"], facts["admin"], process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _status(admin: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{admin}/admin/status", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _median(numbers: Sequence[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def draw(seen: Seen, path: Path, title: str) -> None:
    """Memory, latency and load over the time, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = [sample["seconds"] / 60 for sample in seen.samples]
    figure, (memory, latency, load) = pyplot.subplots(3, 1, sharex=True, figsize=(10, 8), constrained_layout=True)
    figure.suptitle(title)
    memory.plot(minutes, [sample["server_bytes"] / 1e6 for sample in seen.samples], label="server")
    memory.plot(
        minutes, [sample["engine_bytes"] / 1e6 for sample in seen.samples], label="engine (a new one after each kill)"
    )
    memory.set_ylabel("resident memory, MB")
    memory.set_ylim(bottom=0)
    latency.plot(*_buckets(seen.first_tokens, 0.5), label="median")
    latency.plot(*_buckets(seen.first_tokens, 0.99), label="99 of 100")
    latency.set_ylabel("first token, s")
    latency.set_yscale("log")
    load.plot(minutes, [sample["tokens_per_second"] for sample in seen.samples], label="tokens/s")
    load.set_xlabel("minutes")
    for axes in (memory, latency, load):
        for kill in seen.kills:
            axes.axvline(kill / 60, color="tab:red", linewidth=0.6, alpha=0.5)
        axes.plot([], [], color="tab:red", linewidth=0.6, label="engine killed")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize="small", ncols=3, frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _buckets(points: Sequence[tuple[float, float]], quantile: float) -> tuple[list[float], list[float]]:
    """Minutes, and the quantile of what began in each hundredth of the time."""
    if not points:
        return [], []
    width = max(at for at, _ in points) / 100 or 1.0
    groups: dict[int, list[float]] = {}
    for at, value in points:
        groups.setdefault(int(at / width), []).append(value)
    ordered = sorted(groups.items())
    return (
        [(number + 0.5) * width / 60 for number, _ in ordered],
        [sorted(values)[min(len(values) - 1, int(len(values) * quantile))] for _, values in ordered],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--kill-seconds", type=float, default=45.0, help="0: never")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--picture", type=Path, help="a PNG")
    given = parser.parse_args(arguments)
    soak = Soak(given.clients, given.minutes * 60, given.kill_seconds)
    with tempfile.TemporaryDirectory() as folder:
        seen = asyncio.run(soak.run(given.model, Path(folder)))
    summary = (
        f"{given.minutes:g} minutes, {given.clients} clients: {dict(seen.ends)}; {len(seen.kills)} engines killed; "
        f"server memory {seen.growth() - 1:+.1%}"
    )
    print(summary)
    if given.picture:
        draw(seen, given.picture, summary)
    for problem in seen.problems():
        print(f"FAILED: {problem}")
    return 1 if seen.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
