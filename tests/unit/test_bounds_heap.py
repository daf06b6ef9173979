"""Memory that was freed goes back to the system."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from mlx_grpc.bounds import heap
from mlx_grpc.bounds.intake import Intake

MIB = 2**20
PROGRAM = """
import sys
from mlx_grpc.bounds import heap
def memory():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024
if sys.argv[1] == "bounded":
    heap.map_large_blocks()
idle = memory()
for _ in range(2):
    blocks = [bytes([1]) * (4 * 2**20) for _ in range(25)]
    small = [bytes([1]) * 5000 for _ in range(10_000)]
    pins = small[::100] + [bytes([1]) * 100]
    del blocks, small
if sys.argv[1] == "bounded":
    heap.give_back()
print(memory() - idle)
"""


@pytest.mark.skipif(heap._glibc() is None, reason="only glibc keeps large blocks that were freed")
def test_freed_blocks_go_back() -> None:
    """Of 100 MiB in large blocks and 48 in small ones, with some between them still in use."""

    def kept_mib(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    kept = kept_mib("bounded")
    assert kept <= 10
    assert kept_mib("not") > kept


def test_it_is_given_back_when_much_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once and again a little later, and not for the little that always comes and goes."""
    given: list[int] = []
    monkeypatch.setattr(heap, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(heap, "_glibc", lambda: True)
    monkeypatch.setattr(heap, "map_large_blocks", lambda: None)
    monkeypatch.setattr(heap, "give_back", lambda: given.append(1))

    async def main() -> None:
        intake = Intake.for_messages(4 * MIB)
        watching = heap.Heap(intake)
        watching.start()
        for more_bytes, times in ((1000, 0), (8 * MIB, 2), (1000, 2)):
            holding = intake.open("one", lambda: None)
            holding.grow(more_bytes)
            await asyncio.sleep(0.1)
            assert len(given) == (times if more_bytes == 1000 else 0)
            holding.close()
            await asyncio.sleep(0.2)
            assert len(given) == times
        await watching.close()

    asyncio.run(main())


COLLECTING = """
import gc, weakref
from mlx_grpc.bounds import garbage

class Thing:
    pass

def cycle():
    one = Thing()
    one.itself = one
    return weakref.ref(one)

gc.disable()
left = cycle()
garbage.collect()
assert left() is not None, "a program that is not a server alone"
garbage.keep_for_good()
assert left() is None
later = cycle()
garbage.collect()
assert later() is None
assert len(gc.get_objects()) < gc.get_freeze_count() / 100
"""


def test_collections_look_at_what_came_after_the_start() -> None:
    """Modules and settings are left out of them; in a program that has not been frozen there is none."""
    subprocess.run([sys.executable, "-c", COLLECTING], check=True)
