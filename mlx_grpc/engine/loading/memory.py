"""What memory the device has for this process, and MLX's own limits on it."""

from __future__ import annotations

import os
from pathlib import Path

import mlx.core as mx

CACHE_SHARE = 0.05
"""Of the memory, for buffers that MLX keeps to use again. Left to itself it keeps all that the device has, and another
process on the device gets none: seen on a GPU with 139 GiB."""
CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def device_memory_bytes(on_gpu: bool) -> int:
    """Bytes that the device lets this process use: on Metal the recommended working set, on CUDA the card's
    memory, on a CPU what is free now, within the cgroup's limit."""
    if not on_gpu:
        return _free_memory_bytes()
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "free_memory", "total_memory", "memory_size"):
        if (size := int(info.get(key, 0))) > 0:
            return size
    return mx.get_memory_limit()


def limit_memory(limit_bytes: int) -> None:
    """Keep MLX within so many bytes, and what it keeps for later within a small part of that."""
    mx.set_memory_limit(limit_bytes)
    mx.set_cache_limit(int(limit_bytes * CACHE_SHARE))
    if mx.metal.is_available():
        # Weights that macOS pages out make a step many times slower.
        mx.set_wired_limit(min(limit_bytes, int(mx.device_info()["max_recommended_working_set_size"])))


def _free_memory_bytes() -> int:
    free = [_meminfo_available_bytes() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit_file, used_file in CGROUP_FILES:
        limit, used = _number(limit_file), _number(used_file)
        if limit is not None and used is not None:
            free.append(max(0, limit - used))
    return min(free)


def _meminfo_available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: str) -> int | None:
    """The number in this file; None when there is no file, or it says `max`."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
