"""How many requests of a class others have in their first so many turns.

A client's n-th entry of a class has depth n. Among clients that take turns, those with a depth of at most n go before
the n-th of another. Depths are counted in buckets, [1], [2, 3], [4, 7] and so on, so that both questions and changes
are O(log n); within the last bucket asked for, entries are taken to lie evenly.
"""

from __future__ import annotations

BUCKETS = 32


class Depths:
    """The depths of one class, of all clients together."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS

    def __len__(self) -> int:
        return sum(self._buckets)

    def add(self, depth: int) -> None:
        """A client has one more, its `depth`-th."""
        self._buckets[depth.bit_length()] += 1

    def discard(self, depth: int) -> None:
        """A client that had `depth` has one less."""
        self._buckets[depth.bit_length()] -= 1

    def of_others(self, turns: int, mine: int) -> int:
        """About how many the others have in their first `turns` turns; `mine` is how many of all are the asker's."""
        last = turns.bit_length()
        first_depth = 1 << (last - 1)
        whole = sum(self._buckets[:last]) - min(mine, first_depth - 1)
        in_last = self._buckets[last] - max(0, min(mine, 2 * first_depth - 1) - first_depth + 1)
        return whole + in_last * (turns - first_depth + 1) // first_depth
