"""What to do when an engine dies: a pure policy. It is told of starts, crashes and progress; it says who may run next.

The rules:

- A crash makes the requests that were running its suspects. Suspects resume in halves, one half at a time; while any
  are on trial nobody else enters, so that a crash says something about them and one out-of-memory does not become a
  storm.
- A token delivered after the resume clears a suspect. When all of a half are cleared or ended, the next half joins.
- A crash during a trial makes suspects of those on trial alone; the cleared ones that died with them stand aside until
  the trials are over.
- After CALM_RESUMES rounds of halves the suspects join one by one, so that even the largest batch comes down to one
  request before it has used up its resumes: two halves, one crash among those cleared before it, and two alone are
  five.
- Who crashes the engine on trial and alone, twice, is poison. One that just happened to be alone when the engine died,
  since others had ended or the limit was low, becomes a suspect first, as everybody would. Who has been resumed
  MAX_RESUMES times without a token is given up.
- A crash halves the rows that may run at once, for it may have been the memory; each RAISE_AFTER_STEPS good steps
  double them.
- The first restart is quick, the next ones back off. Too many crashes in a row without any progress fail the model; an
  engine that lived for STABLE_SECONDS starts the count anew.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
STABLE_SECONDS = 60.0
MAX_CRASHES_WITHOUT_PROGRESS = 12
MAX_IDLE_CRASHES = 4
"""In a row, with nobody running: then it is not a request that does it."""
MAX_RESUMES = 5
CALM_RESUMES = 2
POISON_CRASHES_ALONE = 2
RAISE_AFTER_STEPS = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a crash means: whom to fail, and when to start again. `gave_up` says why the model is failed, if it is."""

    poison: tuple[int, ...] = ()
    exhausted: tuple[int, ...] = ()
    backoff_seconds: float = 0.0
    gave_up: str = ""


class Recovery:
    """One model's crashes. Requests are known by their keys."""

    def __init__(self, max_rows: int) -> None:
        self.row_limit = max_rows
        """How many rows may run at once now."""
        self._max_rows = max_rows
        self._trials: deque[tuple[int, ...]] = deque()
        self._on_trial: set[int] = set()
        self._resumes: Counter[int] = Counter()
        self._crashes_alone: Counter[int] = Counter()
        self._crashes = 0
        self._idle_crashes = 0
        self._started_seconds: float | None = None
        self._good_steps = 0

    @property
    def eligible(self) -> frozenset[int] | None:
        """Who alone may enter the batch now; None for everybody."""
        return frozenset(self._on_trial) if self._on_trial else None

    def loaded_anew(self) -> None:
        """Somebody asks for the model again: the crashes before count no more."""
        self._crashes = self._idle_crashes = 0

    def started(self, now_seconds: float) -> None:
        """An engine is ready."""
        self._started_seconds = now_seconds

    def stepped(self) -> None:
        """The engine made a step that delivered tokens."""
        if self.row_limit < self._max_rows:
            self._good_steps += 1
            if self._good_steps >= RAISE_AFTER_STEPS:
                self._good_steps = 0
                self.row_limit = min(self._max_rows, self.row_limit * 2)

    def progress(self, key: int) -> None:
        """The request's token was delivered."""
        self._crashes = self._idle_crashes = 0
        if self._resumes:
            self._forget(key)

    def ended(self, key: int) -> None:
        """The request is over, however it ended."""
        if self._resumes or self._on_trial:
            self._forget(key)

    def crashed(self, running: Sequence[int], why: str, now_seconds: float) -> Verdict:
        """The engine died with these requests in its batch, in the order in which they had entered."""
        gave_up = self._count_crash(bool(running), why, now_seconds)
        if gave_up:
            return Verdict(gave_up=gave_up)
        self.row_limit = max(1, min(self.row_limit, (len(running) + 1) // 2)) if running else self.row_limit
        self._good_steps = 0
        suspects = [key for key in running if key in self._on_trial] or list(running)
        self._resumes.update(suspects)
        if len(running) == 1 and self._on_trial:
            self._crashes_alone.update(suspects)
        poison = tuple(key for key in suspects if self._crashes_alone[key] >= POISON_CRASHES_ALONE)
        exhausted = tuple(key for key in suspects if self._resumes[key] > MAX_RESUMES and key not in poison)
        self._on_trial.clear()
        self._trials.extendleft(reversed(self._split([key for key in suspects if key not in poison + exhausted])))
        for key in poison + exhausted:
            self._forget(key)
        self._next_trial()
        backoff = min(FIRST_BACKOFF_SECONDS * 2.0 ** (self._crashes - 1), MAX_BACKOFF_SECONDS)
        return Verdict(poison, exhausted, backoff)

    def _count_crash(self, was_running: bool, why: str, now_seconds: float) -> str:
        """Returns why the model is given up, or nothing."""
        if self._started_seconds is not None and now_seconds - self._started_seconds >= STABLE_SECONDS:
            self._crashes = self._idle_crashes = 0
        self._started_seconds = None
        self._crashes += 1
        self._idle_crashes = 0 if was_running else self._idle_crashes + 1
        if self._crashes > MAX_CRASHES_WITHOUT_PROGRESS or self._idle_crashes > MAX_IDLE_CRASHES:
            return f"its engine died {self._crashes} times without progress, the last time: {why}"
        return ""

    def _split(self, suspects: list[int]) -> list[tuple[int, ...]]:
        calm = [key for key in suspects if self._resumes[key] <= CALM_RESUMES]
        singles = [(key,) for key in suspects if self._resumes[key] > CALM_RESUMES]
        half = (len(calm) + 1) // 2
        return [group for group in (tuple(calm[:half]), tuple(calm[half:])) if group] + singles

    def _forget(self, key: int) -> None:
        del self._resumes[key], self._crashes_alone[key]
        self._on_trial.discard(key)
        if not self._on_trial:
            self._next_trial()

    def _next_trial(self) -> None:
        """The next group that still has a suspect."""
        while self._trials and not self._on_trial:
            self._on_trial.update(key for key in self._trials.popleft() if key in self._resumes)
