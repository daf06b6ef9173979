"""Which client is next: each has its turn, better classes first, and no class waits for ever.

A client waits for its turn since it last had one, or since it began to have something waiting. Its turn comes in the
order of the moment at which it would be HIGH: that moment plus one ageing period for each class below HIGH, of the best
class that it has waiting. So

- among clients of one class the turn goes round: who has waited longest for one is next, however much each has waiting;
- a client with HIGH goes before one with LOW, until that one has waited two periods: then it has one turn;
- of clients with one request each, the order is that of their requests, as if there were no clients.

A turn is one request, not so many tokens of it. What is scarce is a row of the batch, which a request takes whole; how
long it will keep it is not known before it ends, `max_tokens` being a bound that few reach. Tokens are the business of
the rates per client, which count those that were generated.

O(log n) in the clients that have something waiting.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from itertools import count

from mlx_grpc.schedule.entry import Entry
from mlx_grpc.schedule.line import Line, best_class

_SPARE = 64

_Place = tuple[float, int, int, Line]  # the moment, the turn, a serial number that no other place has


class Turns:
    """Clients' lines by their turn. A place in the heap that is not its line's last is left for later."""

    def __init__(self, ageing_seconds: float) -> None:
        self._ageing_seconds = ageing_seconds
        self._heap: list[_Place] = []
        self._live = 0
        self._turn = 0
        self._serial = 0

    def __len__(self) -> int:
        return self._live

    def begin(self, line: Line, now_seconds: float) -> None:
        """A client has something waiting that had nothing."""
        self._live += 1
        self.had(line, now_seconds)

    def had(self, line: Line, now_seconds: float) -> None:
        """It has had its turn."""
        self._turn += 1
        line.since_seconds, line.turn = now_seconds, self._turn
        self.place(line)

    def place(self, line: Line) -> None:
        """Its best class has changed."""
        self._serial = line.serial = self._serial + 1
        moment = line.since_seconds + self._ageing_seconds * line.best
        heapq.heappush(self._heap, (moment, line.turn, line.serial, line))
        self._tidy()

    def end(self, line: Line) -> None:
        """It has nothing waiting any more."""
        self._live -= 1
        line.serial = 0
        self._tidy()

    def first(self) -> Line | None:
        """Who is next."""
        return self._heap[0][3] if self._heap else None

    def order(self, now_seconds: float, full: Collection[str]) -> Iterator[Entry]:
        """The entries in the order of turns, if all that follow were taken now. Those of clients in `full`, which may
        change meanwhile, are left out.

        Only as much of it is worked out as is asked for. Nothing else may change meanwhile.
        """
        heap, serials = self._heap, count(self._serial + 1)
        visited: dict[Line, tuple[Iterator[Entry], list[int]]] = {}
        # The smallest of a heap are found from its top: an index stands for one whose children were not looked at yet.
        ahead = [(*heap[0], 0)] if heap else []
        while ahead:
            _, _, serial, line, index = heapq.heappop(ahead)
            if index >= 0:
                for child in (2 * index + 1, 2 * index + 2):
                    if child < len(heap):
                        heapq.heappush(ahead, (*heap[child], child))
                if line.serial != serial:
                    continue
            if line.client in full:
                continue
            entries, left = visited.setdefault(line, (iter(line), line.counts.copy()))
            entry = next(entries, None)
            if entry is None:
                continue
            yield entry
            left[entry.priority] -= 1
            number = next(serials)
            moment = now_seconds + self._ageing_seconds * best_class(left)
            heapq.heappush(ahead, (moment, self._turn + number, number, line, -1))

    def _tidy(self) -> None:
        """No stale place at the top, and not many elsewhere."""
        heap = self._heap
        while heap and heap[0][3].serial != heap[0][2]:
            heapq.heappop(heap)
        if len(heap) > 2 * self._live + _SPARE:
            self._heap = [place for place in heap if place[3].serial == place[2]]
            heapq.heapify(self._heap)
