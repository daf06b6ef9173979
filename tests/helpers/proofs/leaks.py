"""What a test leaves behind: threads, child processes, asyncio tasks and file descriptors, before and after."""

from __future__ import annotations

import asyncio
import asyncio.runners
import gc
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest

PATIENCE_SECONDS = 5.0
"""For what ends by itself: a socket that grpc's own threads close, a child that is being reaped."""
LOOK_EVERY_SECONDS = 0.01
GRPC_THREADS = ("_poll_wrapper", "channel_spin")
"""The first serves all asyncio use of grpc and lives as long as the process; the second follows its channel's last
reference, which an exception's traceback may hold."""
MATPLOTLIB_FONTS = "/mpl-data/fonts/"
"""It keeps those open that it has drawn with."""
EXECUTOR_THREADS = ("asyncio_", "AnyIO worker thread", "intake-")
"""Threads for blocking calls, a loop's own and a model's: made when needed, and joined when the loop, or the model's
host, is closed."""


@dataclass(frozen=True)
class Belongings:
    """What this process has."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]
    descriptors: Counter[str]
    """How many of each kind: files by path, sockets and pipes by their kind."""

    def more_than(self, before: Belongings) -> list[str]:
        """What was not there before, in words."""
        threads = [f"thread {thread.name}" for thread in self.threads - before.threads if thread.is_alive()]
        children = [f"child process {pid}" for pid in self.children - before.children]
        descriptors = [f"{count} x {kind}" for kind, count in (self.descriptors - before.descriptors).items()]
        return threads + children + descriptors


def belongings() -> Belongings:
    """What this process has now."""
    # A dummy stands for a thread of grpc's own that has called into Python, as it does for certificates.
    threads = (
        thread
        for thread in threading.enumerate()
        if not _excused(thread.name) and not isinstance(thread, threading._DummyThread)
    )
    return Belongings(frozenset(threads), frozenset(children_of(os.getpid())), _descriptors())


def _excused(thread_name: str) -> bool:
    return thread_name.startswith(EXECUTOR_THREADS) or any(name in thread_name for name in GRPC_THREADS)


def children_of(pid: int) -> list[int]:
    """The ids of a process's children, dead ones that nobody has reaped included."""
    tasks = Path(f"/proc/{pid}/task")
    if tasks.is_dir():
        return [int(child) for task in tasks.iterdir() for child in _read(task / "children").split()]
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True) as ps:
        lines = ps.communicate()[0].splitlines()
    pairs = (map(int, line.split()) for line in lines)
    return [child for child, parent in pairs if parent == pid and child != ps.pid]


def _read(path: Path) -> str:
    """Nothing of a thread that has just ended."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _descriptors() -> Counter[str]:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
    kinds: Counter[str] = Counter()
    for name in os.listdir(folder):
        try:
            kind = os.readlink(folder / name).partition(":[")[0]
        except OSError:  # the listing's own, or on a Mac no link
            kind = "descriptor" if folder.parts[1] == "dev" else ""
        # grpc's event engine opens and closes these as it likes; every loop of ours has a socket besides.
        if kind and not kind.startswith("anon_inode") and MATPLOTLIB_FONTS not in kind:
            kinds[kind] += 1
    return kinds


def _wait_for(before: Belongings) -> list[str]:
    """What is left when everything had its chance to end."""
    end_seconds = time.monotonic() + PATIENCE_SECONDS
    for thread in belongings().threads - before.threads:
        thread.join(max(0.0, end_seconds - time.monotonic()))
    gc.collect()
    while (left := belongings().more_than(before)) and time.monotonic() < end_seconds:
        time.sleep(LOOK_EVERY_SECONDS)  # no event tells that grpc has closed a socket
    return left


@pytest.fixture(scope="session")
def grpc_warm() -> Iterator[None]:
    """What grpc's asyncio side has once a process, held for all tests."""

    async def hold() -> None:
        grpc.aio.init_grpc_aio()  # wants a loop to be there

    asyncio.run(hold())
    yield
    grpc.aio.shutdown_grpc_aio()


@pytest.fixture(autouse=True)
def nothing_is_left(grpc_warm: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test there is no thread, child process, task or file descriptor that was not there before."""
    tasks_left: list[str] = []
    cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

    def tell_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
        """`asyncio.run` cancels what is left, in silence."""
        if tasks := asyncio.all_tasks(loop):
            _, pending = loop.run_until_complete(asyncio.wait(tasks, timeout=PATIENCE_SECONDS))
            tasks_left.extend(f"task {task.get_name()}: {task.get_coro()}" for task in pending)
        cancel_all_tasks(loop)

    monkeypatch.setattr(asyncio.runners, "_cancel_all_tasks", tell_and_cancel)
    before = belongings()
    yield
    left = _wait_for(before) + tasks_left
    assert not left, f"left behind: {'; '.join(left)}"
