"""What a script's faults do to the process that runs the scripted engine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from mlx_grpc.engine.scripted.script import Fault

ALLOCATE_BYTES = 64 * 1024 * 1024


def _first_time(fault: Fault) -> bool:
    if not fault.once_path:
        return True
    try:
        os.close(os.open(fault.once_path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def happen(fault: Fault) -> bool:
    """Let a fault happen; True when it is the row's alone."""
    if not _first_time(fault):
        return False
    if fault.action == "abort":
        os.abort()
    elif fault.action == "hang":
        threading.Event().wait()
    elif fault.action == "slow":
        time.sleep(fault.seconds)
    elif fault.action == "allocate":
        _allocate(fault.limit_bytes)
    elif fault.action == "error":
        raise RuntimeError(f"the script's fault for {fault.text!r}")
    return fault.action in ("fail", "nonfinite")


def _allocate(limit_bytes: int) -> None:
    """Take memory until the kernel ends this process; where a limit comes first, end it as the kernel
    would."""
    held: list[bytearray] = []
    with contextlib.suppress(MemoryError):
        while not limit_bytes or len(held) * ALLOCATE_BYTES < limit_bytes:
            held.append(bytearray(b"\1") * ALLOCATE_BYTES)
    os.kill(os.getpid(), signal.SIGKILL)
