"""What the scheduler is told and what it answers. Times are seconds on the caller's one clock."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_grpc.request import Priority


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one engine's queue and batch.

    `max_waiting` requests and `max_waiting_tokens` prompt tokens (None: no limit) may wait; `max_rows` run at
    once. A waiting request gains a class for each `ageing_seconds`. A request that does not fit now may be
    overtaken by `max_overtakes` smaller ones, for `max_overtake_seconds` after the first. With rows running,
    arrivals fewer than `gather_rows` wait up to `gather_seconds` for others to enter with (0: never).
    One client may have `max_client_waiting` requests waiting, and `max_client_rows` of the rows (None: no limit).
    """

    max_waiting: int
    max_waiting_tokens: int | None
    max_rows: int
    ageing_seconds: float = 10.0
    max_overtakes: int = 32
    max_overtake_seconds: float = 5.0
    gather_seconds: float = 0.0
    gather_rows: int = 8
    max_client_waiting: int | None = None
    max_client_rows: int | None = None

    def __post_init__(self) -> None:
        if self.max_waiting < 0 or (self.max_waiting_tokens or 0) < 0 or self.max_rows < 1:
            raise ValueError("max_waiting and max_waiting_tokens must be 0 or more, max_rows 1 or more")
        if not self.ageing_seconds > 0.0:
            raise ValueError("ageing_seconds must be more than 0, or LOW could pass HIGH")
        if self.max_overtakes < 0 or self.max_overtake_seconds < 0.0 or self.gather_seconds < 0.0:
            raise ValueError("max_overtakes, max_overtake_seconds and gather_seconds must be 0 or more")
        if (self.max_client_waiting or 0) < 0 or (self.max_client_rows is not None and self.max_client_rows < 1):
            raise ValueError("max_client_waiting must be 0 or more, max_client_rows 1 or more")


@dataclass(frozen=True, slots=True)
class Entry:
    """A request as the scheduler sees it.

    `key` is unique among those alive; `reserved_tokens` is prompt + max_tokens; `deadline_seconds` is a
    moment, not a span. `prefill_tokens` is how many of the prompt are likely to be processed, where a
    prefix cache may hold the others; None: all. `client` is who asks: one of whom the queue and the limits know
    no more than that it is the same, or another.
    """

    key: int
    priority: Priority
    prompt_tokens: int
    reserved_tokens: int
    arrived_seconds: float
    deadline_seconds: float | None = None
    prefill_tokens: int | None = None
    client: str = ""

    def is_expired(self, now_seconds: float) -> bool:
        """Whether the deadline is here."""
        return self.deadline_seconds is not None and self.deadline_seconds <= now_seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now: insert `admit` in this order, end `expired`, which wait or run.

    Plan again at `wake_at_seconds` (None: no such moment), and after a submit, a departure or a changed
    limit.
    """

    admit: tuple[int, ...] = ()
    expired: tuple[int, ...] = ()
    wake_at_seconds: float | None = None
