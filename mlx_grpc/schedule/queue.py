"""Those who wait, in the order in which they will run.

First those that a crash put back. Then clients have turns (`turns`), so that one client's thousand requests do not
stand before another's first; in its turn a client's own next goes (`line`). With one client alone, or with one request
of each, that is the order of priorities, first come first served, with ageing.

Nothing depends on how many wait: changes and questions are O(1) in the requests, and O(log n) in the clients.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from mlx_grpc.request import Priority
from mlx_grpc.schedule.depths import Depths
from mlx_grpc.schedule.entry import Entry
from mlx_grpc.schedule.line import NONE_WAITING, Line
from mlx_grpc.schedule.turns import Turns

NOBODY: frozenset[str] = frozenset()
_NOT_HERE: tuple[None, None] = (None, None)
NO_COUNTS = [0] * len(Priority)


class Ahead(NamedTuple):
    """How many would run before one that came now: of the client's `own`; of others in the `turns` that they have
    before; and those that others have waiting of `better` classes. These are before it until it has aged."""

    own: int
    turns: int
    better: int


class WaitingQueue:
    """Waiting entries by key. What is called limited leaves out the resumed, whom no limit may refuse."""

    def __init__(self, ageing_seconds: float) -> None:
        self._ageing_seconds = ageing_seconds
        self._resumed: OrderedDict[int, Entry] = OrderedDict()
        self._resumed_tokens = 0
        self._waiting: dict[int, tuple[Entry, Line | None]] = {}
        """The resumed have no line."""
        self._lines: dict[str, Line] = {}
        self._turns = Turns(ageing_seconds)
        self._depths = tuple(Depths() for _ in Priority)
        self._now_seconds = 0.0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: object) -> bool:
        return key in self._waiting

    def __iter__(self) -> Iterator[Entry]:
        """Entries in the order in which they would run if all ran at the last moment that was told."""
        return self.order(self._now_seconds)

    def order(self, now_seconds: float, full: Collection[str] = NOBODY) -> Iterator[Entry]:
        """Entries in the order in which they run if all that follow enter now. Those of clients in `full`, which may
        grow meanwhile, are left out."""
        for entry in self._resumed.values():
            if entry.client not in full:
                yield entry
        if len(self._lines) > 1:
            yield from self._turns.order(now_seconds, full)
            return
        for line in self._lines.values():
            for entry in line:
                if line.client in full:
                    return
                yield entry

    @property
    def limited_count(self) -> int:
        """How many wait, the resumed left out."""
        return len(self._waiting) - len(self._resumed)

    @property
    def limited_tokens(self) -> int:
        """Prompt tokens of those who wait, the resumed left out."""
        return self.tokens - self._resumed_tokens

    @property
    def counts(self) -> dict[Priority, int]:
        """How many wait of each class; an aged entry counts in the class it came with."""
        counts = {priority: len(self._depths[priority]) for priority in Priority}
        for entry in self._resumed.values():
            counts[entry.priority] += 1
        return counts

    @property
    def clients(self) -> Collection[str]:
        """Those with something waiting, the resumed left out."""
        return self._lines.keys()

    def held_by(self, client: str) -> tuple[int, int]:
        """How many requests, and prompt tokens, the client has waiting, the resumed left out."""
        line = self._lines.get(client)
        return (len(line), line.tokens) if line is not None else (0, 0)

    def head(self) -> Entry | None:
        """The next to run."""
        for entry in self._resumed.values():
            return entry
        line = self._turns.first()
        return next(iter(line)) if line is not None else None

    def ahead(self, priority: Priority, now_seconds: float, client: str = "") -> Ahead:
        """How many would run before one that came now. Exact for a client alone; with others an estimate, since theirs
        that aged are not counted, and whose turn comes when depends on who comes."""
        return self._ahead(self._lines.get(client), priority, now_seconds)

    def tail_position(self, priority: Priority, now_seconds: float, client: str = "") -> int:
        """How many would run before one that came now; see `ahead`."""
        return sum(self._ahead(self._lines.get(client), priority, now_seconds))

    def push(self, entry: Entry, now_seconds: float) -> int:
        """Put at the tail of its class; returns its position. ValueError for a key that waits already."""
        if entry.key in self._waiting:
            raise ValueError(f"request {entry.key} waits already")
        self._now_seconds = now_seconds
        client, priority = entry.client, entry.priority
        line = self._lines.get(client)
        position = sum(self._ahead(line, priority, now_seconds))
        if line is None:
            line = self._lines[client] = Line(client)
        best = line.best
        self._depths[priority].add(line.add(entry, now_seconds + self._ageing_seconds))
        if best == NONE_WAITING:
            self._turns.begin(line, now_seconds)
        elif priority < best:
            self._turns.place(line)
        self._waiting[entry.key] = (entry, line)
        self.tokens += entry.prompt_tokens
        return position

    def push_front(self, entries: Iterable[Entry]) -> None:
        """Put before all others, the first of `entries` first."""
        for entry in reversed(tuple(entries)):
            if entry.key in self._waiting:
                raise ValueError(f"request {entry.key} waits already")
            self._waiting[entry.key] = (entry, None)
            self._resumed[entry.key] = entry
            self._resumed.move_to_end(entry.key, last=False)
            self.tokens += entry.prompt_tokens
            self._resumed_tokens += entry.prompt_tokens

    def take(self, key: int, now_seconds: float) -> Entry | None:
        """Take out one that enters: its client has had a turn, unless it was put back by a crash."""
        self._now_seconds = now_seconds
        entry, line = self._waiting.get(key, (None, None))
        self.remove(key)
        if line is not None and line.best != NONE_WAITING:
            self._turns.had(line, now_seconds)
        return entry

    def remove(self, key: int) -> Entry | None:
        """Take out one that leaves without having run; None where it does not wait."""
        entry, line = self._waiting.pop(key, _NOT_HERE)
        if entry is None:
            return None
        self.tokens -= entry.prompt_tokens
        if line is None:
            del self._resumed[key]
            self._resumed_tokens -= entry.prompt_tokens
            return entry
        best = line.best
        self._depths[entry.priority].discard(line.discard(entry))
        if line.best != best:
            if line.best == NONE_WAITING:
                del self._lines[line.client]
                self._turns.end(line)
            else:
                self._turns.place(line)
        return entry

    def is_limited(self, key: int) -> bool:
        """Whether it waits and the limits count it."""
        return key in self._waiting and key not in self._resumed

    def _ahead(self, line: Line | None, priority: Priority, now_seconds: float) -> Ahead:
        if line is None:
            own, counts = 0, NO_COUNTS
        else:
            line.age(now_seconds, self._ageing_seconds)
            own, counts = line.ahead_of(priority), line.counts
        turns = len(self._resumed)
        if len(self._lines) == (line is not None):  # alone
            return Ahead(own, turns, 0)
        turns += self._depths[priority].of_others(own + 1, counts[priority])
        better = sum(len(self._depths[number]) - counts[number] for number in range(priority))
        return Ahead(own, turns, better)
