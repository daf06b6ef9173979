"""How much a log may grow, whatever comes: lines that are too many are counted, and the counts are logged.

Lines are of one kind when one place in the code wrote them. Each kind has a bound, so that a flood of one leaves room
for the others, and all together have one. Both let a burst pass and then so many bytes a minute. Knows no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIND_BURST_BYTES, KIND_MINUTE_BYTES = 20 * 1024, 40 * 1024
ALL_BURST_BYTES, ALL_MINUTE_BYTES = 36 * 1024, 56 * 1024
"""In no minute more than both together, and a line for each kind that was cut."""
URGENT_BYTES = 8 * 1024
"""Of what is left for all, this is for warnings and errors alone."""
MOST_KINDS = 256


class Bucket:
    """Holds `most` bytes and is filled again with so many a minute."""

    def __init__(self, most: int, minute_bytes: int, now: float) -> None:
        self._most = most
        self._per_second = minute_bytes / 60
        self._left = float(most)
        self._seconds = now

    def left(self, now: float) -> float:
        """Bytes that can be taken now."""
        self._left = min(self._most, self._left + (now - self._seconds) * self._per_second)
        self._seconds = now
        return self._left

    def take(self, count: int) -> None:
        """After `left`."""
        self._left -= count


@dataclass(frozen=True, slots=True)
class Kind:
    """Lines of one place in the code, and the beginning of one of them."""

    logger: str
    level: int
    path: str
    line: int
    example: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Lines of one kind that were not logged."""

    kind: Kind
    count: int


class LogLimit:
    """Decides for each line. Use it under a lock."""

    def __init__(self, now: float) -> None:
        self._all = Bucket(ALL_BURST_BYTES, ALL_MINUTE_BYTES, now)
        self._kinds: dict[Kind, Bucket] = {}
        self._left_out: dict[Kind, int] = {}

    def admits(self, kind: Kind, size: int, urgent: bool, now: float) -> bool:
        """Whether a line of so many bytes is logged; it is counted as left out if not."""
        size = min(size, KIND_BURST_BYTES)  # no record is larger by much, and one that is must not wait for ever
        bucket = self._bucket(kind, now)
        kept = 0 if urgent else URGENT_BYTES
        if bucket.left(now) < size or self._all.left(now) - kept < size:
            self._count(kind)
            return False
        bucket.take(size)
        self._all.take(size)
        return True

    def take_left_out(self) -> list[LeftOut]:
        """What was left out since the last time."""
        taken = [LeftOut(kind, count) for kind, count in self._left_out.items()]
        self._left_out.clear()
        return taken

    def _count(self, kind: Kind) -> None:
        if kind not in self._left_out and len(self._left_out) >= MOST_KINDS:
            kind = next(iter(self._left_out))  # so many kinds at once: their sum still tells
        self._left_out[kind] = self._left_out.get(kind, 0) + 1

    def _bucket(self, kind: Kind, now: float) -> Bucket:
        bucket = self._kinds.pop(kind, None) or Bucket(KIND_BURST_BYTES, KIND_MINUTE_BYTES, now)
        self._kinds[kind] = bucket  # the last used is last
        if len(self._kinds) > MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        return bucket
