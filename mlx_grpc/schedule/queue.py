"""Those who wait, in the order in which they will run.

Four lanes, each first come first served, emptied in this order: those that a crash put back, HIGH, NORMAL,
LOW. Whoever has waited `ageing_seconds` in a lane moves to the tail of the next better one, so that LOW ends
under any load of HIGH: it is then behind those HIGH that were there before, and before all that come later.
Time never changes the order of two that wait already, only of one that waits and one that comes: so ageing is
done when somebody comes, and reading changes nothing.

Everything is O(1). Many may be due at once after a silence: a call moves at most MAX_MOVES from each lane.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain

from mlx_grpc.request import Priority
from mlx_grpc.schedule.entry import Entry

MAX_MOVES = 16

_RESUMED = 0  # the lane before HIGH; class c is lane c + 1
_Lane = OrderedDict[int, tuple[Entry, float]]  # key -> entry, the moment it is due in the next lane


class WaitingQueue:
    """Waiting entries by key. What is called limited leaves out the resumed, whom no limit may refuse."""

    def __init__(self, ageing_seconds: float) -> None:
        self._ageing_seconds = ageing_seconds
        # Not dict: it finds its first key past all deleted ones, which makes a queue quadratic.
        self._lanes: tuple[_Lane, ...] = tuple(OrderedDict() for _ in range(len(Priority) + 1))
        self._lane_of: dict[int, int] = {}
        self._counts = dict.fromkeys(Priority, 0)
        self.tokens = 0
        self.limited_tokens = 0

    def __len__(self) -> int:
        return len(self._lane_of)

    def __contains__(self, key: object) -> bool:
        return key in self._lane_of

    def __iter__(self) -> Iterator[Entry]:
        """Entries in the order in which they will run."""
        return (entry for entry, _ in chain.from_iterable(lane.values() for lane in self._lanes))

    @property
    def limited_count(self) -> int:
        """How many wait, the resumed left out."""
        return len(self._lane_of) - len(self._lanes[_RESUMED])

    @property
    def counts(self) -> dict[Priority, int]:
        """How many wait of each class; an aged entry counts in the class it came with."""
        return dict(self._counts)

    def head(self) -> Entry | None:
        """The next to run."""
        return next(iter(self), None)

    def tail_position(self, priority: Priority, now_seconds: float) -> int:
        """How many would run before one that came now."""
        self._age(now_seconds)
        return sum(len(lane) for lane in self._lanes[: priority + 2])

    def push(self, entry: Entry, now_seconds: float) -> int:
        """Put at the tail of its class; returns its position. ValueError for a key that waits already."""
        if entry.key in self._lane_of:
            raise ValueError(f"request {entry.key} waits already")
        position = self.tail_position(entry.priority, now_seconds)
        self._lanes[entry.priority + 1][entry.key] = (entry, now_seconds + self._ageing_seconds)
        self._lane_of[entry.key] = entry.priority + 1
        self._count(entry, 1, limited=True)
        return position

    def push_front(self, entries: Iterable[Entry]) -> None:
        """Put before all others, the first of `entries` first."""
        lane = self._lanes[_RESUMED]
        for entry in reversed(tuple(entries)):
            if entry.key in self._lane_of:
                raise ValueError(f"request {entry.key} waits already")
            lane[entry.key] = (entry, 0.0)
            lane.move_to_end(entry.key, last=False)
            self._lane_of[entry.key] = _RESUMED
            self._count(entry, 1, limited=False)

    def remove(self, key: int) -> Entry | None:
        """Take out by key; None where it does not wait."""
        lane = self._lane_of.pop(key, None)
        if lane is None:
            return None
        entry, _ = self._lanes[lane].pop(key)
        self._count(entry, -1, limited=lane != _RESUMED)
        return entry

    def is_limited(self, key: int) -> bool:
        """Whether it waits and the limits count it."""
        return self._lane_of.get(key, _RESUMED) != _RESUMED

    def _count(self, entry: Entry, step: int, *, limited: bool) -> None:
        self._counts[entry.priority] += step
        self.tokens += step * entry.prompt_tokens
        if limited:
            self.limited_tokens += step * entry.prompt_tokens

    def _age(self, now_seconds: float) -> None:
        # From the last lane upwards: one that is long overdue passes through two lanes in one call.
        for lane in range(len(self._lanes) - 1, _RESUMED + 1, -1):
            worse, better = self._lanes[lane], self._lanes[lane - 1]
            for _ in range(min(MAX_MOVES, len(worse))):
                key, (entry, due_seconds) = next(iter(worse.items()))
                if due_seconds > now_seconds:
                    break
                del worse[key]
                better[key] = (entry, due_seconds + self._ageing_seconds)
                self._lane_of[key] = lane - 1
