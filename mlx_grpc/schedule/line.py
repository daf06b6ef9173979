"""What one client has waiting, in the order in which it will run.

Three lanes, each first come first served: HIGH, NORMAL, LOW. Whoever has waited `ageing_seconds` in a lane moves to the
tail of the next better one, so that LOW ends under any load of HIGH: it is then behind those HIGH that were there
before, and before all that come later. Time never changes the order of two that wait already, only of one that waits
and one that comes: so ageing is done when somebody comes, and reading changes nothing.

Everything is O(1). Many may be due at once after a silence: a call moves at most MAX_MOVES from each lane.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from mlx_grpc.request import Priority
from mlx_grpc.schedule.entry import Entry

MAX_MOVES = 16

_CLASSES = len(Priority)
NONE_WAITING = _CLASSES
"""The best class of a line with nothing in it."""


_Lane = OrderedDict[int, tuple[Entry, float]]  # key -> entry, the moment it is due in the next lane


class Line:
    """One client's. `counts` and `best` go by the class that entries came with, whatever lane they are in by now."""

    __slots__ = ("best", "client", "counts", "lanes", "serial", "since_seconds", "tokens", "turn")

    def __init__(self, client: str) -> None:
        self.client = client
        # Not dict: it finds its first key past all deleted ones, which makes a queue quadratic.
        self.lanes: tuple[_Lane, ...] = tuple(OrderedDict() for _ in range(_CLASSES))
        self.counts = [0] * _CLASSES
        self.best = NONE_WAITING
        """The best class that it has waiting."""
        self.tokens = 0
        """Prompt tokens of all its entries."""
        self.since_seconds = 0.0
        """Since when it waits for a turn, and its place among those who do; `Turns` keeps these."""
        self.turn = self.serial = 0

    def __len__(self) -> int:
        high, normal, low = self.lanes
        return len(high) + len(normal) + len(low)

    def __iter__(self) -> Iterator[Entry]:
        """Its entries in the order in which they will run."""
        return (entry for entry, _ in chain.from_iterable(lane.values() for lane in self.lanes))

    def ahead_of(self, priority: int) -> int:
        """How many of its own would run before one that came now."""
        high, normal, low = self.lanes
        ahead = len(high)
        if priority > 0:
            ahead += len(normal)
            if priority > 1:
                ahead += len(low)
        return ahead

    def add(self, entry: Entry, due_seconds: float) -> int:
        """Put at the tail of its class; returns how many of that class there are now."""
        priority = entry.priority
        self.lanes[priority][entry.key] = (entry, due_seconds)
        self.tokens += entry.prompt_tokens
        if priority < self.best:
            self.best = priority
        count = self.counts[priority] = self.counts[priority] + 1
        return count

    def discard(self, entry: Entry) -> int:
        """Take out one of its own; returns how many of that class there were."""
        priority, key, lanes, counts = entry.priority, entry.key, self.lanes, self.counts
        if lanes[priority].pop(key, None) is None and lanes[priority - 1].pop(key, None) is None:
            del lanes[0][key]  # it has aged twice
        self.tokens -= entry.prompt_tokens
        count = counts[priority]
        counts[priority] = count - 1
        if count == 1:
            self.best = best_class(counts)
        return count

    def age(self, now_seconds: float, ageing_seconds: float) -> None:
        """Move those that are due. From the last lane upwards: one long overdue passes through two in one call."""
        high, normal, low = self.lanes
        for worse, better in ((low, normal), (normal, high)):
            for _ in range(min(MAX_MOVES, len(worse))):
                key, (entry, due_seconds) = next(iter(worse.items()))
                if due_seconds > now_seconds:
                    break
                del worse[key]
                better[key] = (entry, due_seconds + ageing_seconds)


def best_class(counts: list[int]) -> int:
    """The first class of which there are some; NONE_WAITING for none."""
    for number, count in enumerate(counts):
        if count:
            return number
    return NONE_WAITING
