"""How large a process is, for systems whose kernel does not bound it.

Linux enforces the limit on the address space that the process gives itself (`limits`). macOS does not: there the
server asks `ps` while it waits for an answer, so that a process is seen within a few hundredths of a second. What it
takes in that time is bounded by the speed of the memory alone.
"""

from __future__ import annotations

import subprocess
import sys

KERNEL_BOUNDS_MEMORY = sys.platform == "linux"


class Size:
    """Of one process: what it had when it was ready, and whether it has grown past its limit."""

    def __init__(self, pid: int, memory_bytes: int, kernel_bounds: bool = KERNEL_BOUNDS_MEMORY) -> None:
        self._pid = pid
        self._memory_bytes = memory_bytes
        self._watched = not kernel_bounds
        self._idle_bytes = 0

    def watch(self) -> None:
        """It is ready: what it has now it may have besides."""
        if self._watched:
            self._idle_bytes = resident_bytes(self._pid)

    def is_too_large(self) -> bool:
        """Whether it has more than it may; always False where the kernel sees to it."""
        return self._watched and resident_bytes(self._pid) > self._idle_bytes + self._memory_bytes


def resident_bytes(pid: int) -> int:
    """What `ps` says that a process has in memory; 0 where it says nothing."""
    asked = ["ps", "-o", "rss=", "-p", str(pid)]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=5).stdout
        return int(told) * 1024
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0
