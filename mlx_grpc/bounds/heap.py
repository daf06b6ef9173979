"""Gives memory that was freed back to the system, where the C library keeps it.

glibc hands blocks of some megabytes out of its own heap once one of that size was freed, and its heap shrinks from the
end alone: one small object at the end keeps all that was free before it. So large blocks are mapped one by one
here, for good, and when much of what was taken in has been answered, the heap's free pages are given back.

macOS and musl have neither habit, and nothing is done there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from functools import cache

from mlx_grpc.bounds.garbage import collect
from mlx_grpc.bounds.intake import Intake

MAPPED_BYTES = 256 * 1024
"""Blocks from this size on are mapped by themselves, and are gone when they are freed."""
LOOK_EVERY_SECONDS = 1.0
MUCH_BYTES = 4 * 1024 * 1024
"""Less than this coming and going is the ordinary business of a heap."""
AGAIN_AFTER_LOOKS = 4
"""What was answered is still being let go of: connections end a little later."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


class Heap:
    """Watches an account, and gives back when much of what it held is gone. `close` must follow `start`."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Nothing where nothing is needed."""
        if _glibc() is not None:
            map_large_blocks()
            self._watching = asyncio.create_task(self._watch(), name="heap")

    async def close(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    async def _watch(self) -> None:
        taken_bytes, looks_left = 0, 0
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            looks_left -= 1
            if self._intake.taken_bytes - taken_bytes >= MUCH_BYTES and self._intake.held_bytes < MUCH_BYTES:
                taken_bytes, looks_left = self._intake.taken_bytes, AGAIN_AFTER_LOOKS
            elif looks_left != 0:
                continue
            collect()
            await asyncio.to_thread(give_back)


def map_large_blocks() -> None:
    """For this process, from now on."""
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, MAPPED_BYTES)


def give_back() -> None:
    """All free pages of the heap. Takes milliseconds for each hundred megabytes, without the interpreter's lock."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
    except (OSError, AttributeError, TypeError):
        return None
    return libc
