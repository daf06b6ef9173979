"""What to do when an engine dies: a pure policy, told of crashes and progress, asked what comes next."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
MAX_CRASHES_WITHOUT_PROGRESS = 5


@dataclass(frozen=True, slots=True)
class Restart:
    """Start another engine after this long."""

    backoff_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The model is failed."""

    reason: str


class Recovery:
    """Counts the crashes of one model since its engine last delivered a token."""

    def __init__(self) -> None:
        self._crashes = 0

    def progress(self) -> None:
        """A token was delivered."""
        self._crashes = 0

    def crashed(self, why: str) -> Restart | GiveUp:
        """The engine died. The first restart is quick, later ones back off; too many in a row end it."""
        self._crashes += 1
        if self._crashes > MAX_CRASHES_WITHOUT_PROGRESS:
            return GiveUp(f"its engine died {self._crashes} times in a row, the last time: {why}")
        return Restart(min(FIRST_BACKOFF_SECONDS * 2.0 ** (self._crashes - 1), MAX_BACKOFF_SECONDS))
