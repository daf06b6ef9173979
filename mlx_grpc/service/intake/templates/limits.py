"""The limits that a process which runs a template gives itself before it reads the template.

- Memory: the address space, above what the process has when it starts. The kernel of macOS does not enforce it: there
  the server watches the process's size (`process`).
- Time: the processor's, so that a busy machine takes nothing from it. The kernel ends the process when it runs out,
  whatever the process does meanwhile, also within one long operation of the interpreter.
- No further processes, no files beyond a few descriptors, nothing written to a file, no core dump.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

MAX_DESCRIPTORS = 64
OUT_OF_TIME = signal.SIGPROF
"""What ends a process whose time is over."""


def confine(memory_bytes: int) -> None:
    """Give this process `memory_bytes` more than it has now, and take from it what rendering does not need."""
    start_bytes = _address_space_bytes()
    _limit(resource.RLIMIT_AS, start_bytes + memory_bytes)
    _limit(resource.RLIMIT_NOFILE, MAX_DESCRIPTORS)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NPROC, 0)


@contextlib.contextmanager
def processor_seconds(seconds: float) -> Iterator[None]:
    """The work within may take so much of the processor's time; then the kernel ends this process."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some
        resource.setrlimit(which, (most, most))


def _address_space_bytes() -> int:
    """What the process has mapped; where there is no /proc, the most that it has had in memory."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
