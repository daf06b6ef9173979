"""What a child process that reads somebody's file may take, by the size of the file. It sets its own limits."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_GIB = 1 << 30
_BASE_MEMORY_BYTES = 2 * _GIB
"""Addresses, not memory in use. A small file's import had 0.1 GiB of them; the rest is for vocabularies, which take
many times the bytes that they have in the file."""
_MEMORY_FOR_EACH_BYTE = 4
_MEMORY_FOR_EACH_BYTE_OF_TEXT = 24
"""Of a vocabulary: strings in tables."""
_LITTLE_MEMORY_BYTES = 192 << 20
_BASE_CPU_SECONDS = 120
_CPU_BYTES_PER_SECOND = 2 << 20
"""The slowest that a file may be read with."""

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
"""For such a child: threads take addresses by the processor."""


def limit_resources(file_bytes: int) -> None:
    """Memory and processor time of this process, for a file of weights with so many bytes. On a Mac the time alone: its
    system has no limit of addresses that holds."""
    _limit(_BASE_CPU_SECONDS + file_bytes // _CPU_BYTES_PER_SECOND, memory_bytes(file_bytes))


def limit_growth(file_bytes: int, cpu_seconds: int) -> None:
    """How much more memory and time this process may take from now on, for vocabularies of so many bytes."""
    growth_bytes = _LITTLE_MEMORY_BYTES + _MEMORY_FOR_EACH_BYTE_OF_TEXT * file_bytes
    used = resource.getrusage(resource.RUSAGE_SELF)
    used_seconds = int(used.ru_utime + used.ru_stime) + 1
    _limit(used_seconds + cpu_seconds + file_bytes // _CPU_BYTES_PER_SECOND, _addresses_bytes() + growth_bytes)


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    _lower(resource.RLIMIT_CPU, cpu_seconds)
    _lower(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        _lower(resource.RLIMIT_AS, memory_bytes)


def _addresses_bytes() -> int:
    """Of this process now, on Linux."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return _BASE_MEMORY_BYTES


def memory_bytes(file_bytes: int) -> int:
    """The most addresses of such a process."""
    return _BASE_MEMORY_BYTES + _MEMORY_FOR_EACH_BYTE * file_bytes


def _lower(what: int, limit: int) -> None:
    soft, hard = resource.getrlimit(what)
    lower = [limit, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)]
    resource.setrlimit(what, (min(lower), hard))
