"""Which deadlines have passed, and which is next: a heap that is read without being changed."""

from __future__ import annotations

import heapq

_SPARE = 64


class DeadlineHeap:
    """Deadlines by key. O(log n) to add, amortised O(1) to discard, O(expired) to ask."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._live: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._live)

    def add(self, key: int, deadline_seconds: float) -> None:
        """Watch `key`; a key that is watched already gets the new deadline."""
        self._live[key] = deadline_seconds
        heapq.heappush(self._heap, (deadline_seconds, key))

    def discard(self, key: int) -> None:
        """Watch `key` no longer. Its place in the heap is left for later; the heap is rebuilt when most are
        such."""
        if self._live.pop(key, None) is None:
            return
        if len(self._heap) > 2 * len(self._live) + _SPARE:
            self._heap = [(deadline, key) for key, deadline in self._live.items()]
            heapq.heapify(self._heap)
        while self._heap and not self._is_live(0):
            heapq.heappop(self._heap)

    def due(self, now_seconds: float) -> tuple[tuple[int, ...], float | None]:
        """The keys whose deadline is here, earliest first, and the earliest deadline after them."""
        expired: list[tuple[float, int]] = []
        next_seconds: float | None = None
        look = [0]
        while look:
            index = look.pop()
            if index >= len(self._heap):
                continue
            deadline, key = self._heap[index]
            if next_seconds is not None and deadline >= next_seconds:
                continue  # all below it are later still
            if self._is_live(index):
                if deadline > now_seconds:
                    next_seconds = deadline
                    continue
                expired.append((deadline, key))
            look += (2 * index + 1, 2 * index + 2)
        return tuple(key for _, key in sorted(set(expired))), next_seconds

    def _is_live(self, index: int) -> bool:
        deadline, key = self._heap[index]
        return self._live.get(key) == deadline
