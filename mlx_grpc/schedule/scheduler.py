"""The scheduler of one engine: who is accepted, who enters, who has run out of time.

`plan` decides and changes nothing; its caller acts, and tells what it did:

    queued = scheduler.submit(entry, now)        # or QueueFull, NeverFits, DeadlineUnreachable
    plan = scheduler.plan(now)
    to_cancel = scheduler.apply(plan, now)       # at once after plan, nothing else in between
    # hand plan.admit and to_cancel to the engine; later, as the engine reports:
    scheduler.ledger.first_token(key, now); scheduler.ledger.finished(key, now)

Everyone accepted ends exactly once: finished, removed, or cancelled while waiting. A passed deadline is one
of the latter two. One owner, one thread: there is no lock and no clock in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice

from mlx_grpc.errors import QueueFull
from mlx_grpc.request import Queued
from mlx_grpc.schedule import refusals
from mlx_grpc.schedule.admission import Batch, choose
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.entry import Entry, Limits, Plan
from mlx_grpc.schedule.ledger import Ledger, UnknownRequest
from mlx_grpc.schedule.rates import Rates

__all__ = ["Entry", "Limits", "Plan", "Scheduler", "UnknownRequest"]

RATES_TRUSTED_SECONDS = 60.0
"""How long after the engine's last sign of life its rates may refuse a deadline. Were it for ever, one slow
start could refuse every call with a deadline, nothing would run, and nothing better would be measured."""


class Scheduler:
    """Decides for one engine. What it decides by is told to it; what happened is written into `ledger`, by its caller
    and by `submit` and `apply`."""

    def __init__(self, limits: Limits, budget: KvBudget | None = None, rates: Rates | None = None) -> None:
        self.ledger = Ledger(limits.ageing_seconds, rates)
        self.limits = limits
        self.budget = budget or KvBudget(0, 0)
        """Rows that run already go on when it changes, and whoever was accepted stays so."""
        self.row_limit = limits.max_rows
        self.gather_seconds = limits.gather_seconds
        """As in `limits`, until the engine's device says otherwise."""
        self.others_bytes = 0
        """KV bytes that other engines of the device have reserved: not for these rows now, but not gone for good."""
        self.eligible: frozenset[int] | None = None
        """Who alone may enter now, while the suspects of a crash are tried; None for everybody."""
        self._refused_since: tuple[int, int] = (0, 0)
        """Refusals in a row, and how many departures from the queue there had been then."""

    @property
    def kv_reserved_bytes(self) -> int:
        """Peak bytes that the running rows may take, as the budget counts them."""
        return self.budget.batch_bytes(self.ledger.running, self.ledger.longest_running_tokens)

    def set_row_limit(self, rows: int) -> None:
        """Let at most `rows` run at once from now on (0: none; never above max_rows). Rows that run already
        go on."""
        self.row_limit = max(0, min(rows, self.limits.max_rows))

    def submit(self, entry: Entry, now_seconds: float) -> Queued:
        """Accept `entry`; returns its place in the queue and its estimated wait (None: nothing measured yet).

        Raises NeverFits, DeadlineUnreachable or QueueFull, and then keeps nothing of it; ValueError for a key
        alive already. The queue is full when more than `max_waiting` requests, or `max_waiting_tokens` of
        prompts, would be left waiting after the next plan: those that it admits do not count, so with
        `max_waiting` 0 a request that can run at once is accepted. One that would wait alone is not refused
        for its tokens.
        """
        if entry.key in self.ledger:
            raise ValueError(f"request {entry.key} is alive already")
        if not self.budget.can_ever_fit(entry.reserved_tokens):
            raise refusals.never_fits(entry, self.budget)
        if entry.is_expired(now_seconds):
            raise refusals.deadline_unreachable(0.0, None)
        if not self._has_place(entry, now_seconds):
            raise self._queue_full()
        departures = self._departures_before(entry, now_seconds)
        self._check_deadline(entry, departures, now_seconds)
        position = self.ledger.enter(entry, now_seconds)
        return Queued(position, self.ledger.rates.estimated_wait_seconds(departures, self._turning_rows()))

    def check_place(self, preparing: int = 0) -> None:
        """Raises QueueFull where `submit` would have no place for any entry, whatever it is; O(1).

        For a caller to whom it costs much to make an entry. `preparing` others are being made, and get places first.
        """
        queue, entering = self.ledger.queue, self._entering_at_most()
        left = queue.limited_count + preparing + 1 - entering
        # Which of them enter, with their tokens, is known only when there is an entry.
        left_tokens = 0 if entering else queue.limited_tokens + preparing + 1
        if not self._within_limits(left, left_tokens):
            raise self._queue_full()

    def plan(self, now_seconds: float) -> Plan:
        """What to do now. Changes nothing: asked twice, it answers the same.

        `expired` holds those whose deadline has come, waiting or with a row; those leaving already are left
        out.
        """
        expired, wake_at_seconds = self.ledger.deadlines.due(now_seconds)
        chosen = self._choose(self.ledger.queue, now_seconds)
        gather_until = self._gather_until(chosen)
        if gather_until is not None and gather_until > now_seconds:
            chosen = []
            wake_at_seconds = gather_until if wake_at_seconds is None else min(gather_until, wake_at_seconds)
        return Plan(tuple(entry.key for entry in chosen), expired, wake_at_seconds)

    def apply(self, plan: Plan, now_seconds: float) -> tuple[int, ...]:
        """Carry out a plan just made. Returns the expired that hold a row, for the engine to cancel."""
        self.ledger.admitted(plan.admit, now_seconds)
        with_row = tuple(key for key in plan.expired if not self.ledger.cancel_waiting(key))
        for key in with_row:
            self.ledger.leaving(key, now_seconds)
        return with_row

    def _choose(self, waiting: Iterable[Entry], now_seconds: float) -> list[Entry]:
        if self.ledger.running >= self.row_limit:
            return []
        if self.eligible is not None:
            waiting = [entry for entry in waiting if entry.key in self.eligible]
        return choose(waiting, self._batch(), self._budget_now(), self.limits, self.ledger.overtaken, now_seconds)

    def _entering_at_most(self) -> int:
        """The next plan admits no more than these, whoever waits."""
        batch = self._batch()
        bounds = [batch.free_rows]
        if self.eligible is not None:
            bounds.append(len(self.eligible))
        rows = self._budget_now().rows_at_most(max(batch.longest_tokens, 1))
        if rows is not None:
            bounds.append(max(rows - batch.rows, 1 if batch.rows == 0 and batch.alone else 0))
        return min(bounds)

    def _budget_now(self) -> KvBudget:
        """What other engines leave of it."""
        if self.others_bytes and not self.budget.unlimited:
            return self.budget.with_total(max(1, self.budget.total_bytes - self.others_bytes))
        return self.budget

    def _gather_until(self, chosen: list[Entry]) -> float | None:
        """Until when `chosen` wait for company; None when the engine is idle, or they are enough or fill the batch."""
        if not chosen or not self.ledger.running or self.ledger.running + len(chosen) >= self.row_limit:
            return None
        if len(chosen) >= self.limits.gather_rows:
            return None
        return min(entry.arrived_seconds for entry in chosen) + self.gather_seconds

    def _has_place(self, entry: Entry, now_seconds: float) -> bool:
        left = self.ledger.queue.limited_count + 1
        left_tokens = self.ledger.queue.limited_tokens + entry.prompt_tokens
        if self._within_limits(left, left_tokens):
            return True
        # In the place that it would get: one of high priority may take the room of several that wait.
        waiting = iter(self.ledger.queue)
        before = islice(waiting, self.ledger.queue.tail_position(entry.priority, now_seconds))
        for chosen in self._choose(chain(before, (entry,), waiting), now_seconds):
            if chosen.key == entry.key or self.ledger.queue.is_limited(chosen.key):
                left -= 1
                left_tokens -= chosen.prompt_tokens
        return self._within_limits(left, left_tokens)

    def _within_limits(self, count: int, tokens: int) -> bool:
        max_tokens = self.limits.max_waiting_tokens
        return count <= self.limits.max_waiting and (count <= 1 or max_tokens is None or tokens <= max_tokens)

    def _queue_full(self) -> QueueFull:
        # Each refusal is told to come one departure after the one before, or all would come back at once.
        departures = self.ledger.queue_departures
        refused = self._refused_since[0] + 1 if self._refused_since[1] == departures else 1
        self._refused_since = (refused, departures)
        retry_seconds = self.ledger.rates.estimated_wait_seconds(refused, self._turning_rows())
        return refusals.queue_full(self.ledger.queue.limited_count, retry_seconds)

    def _batch(self) -> Batch:
        rows = self.ledger.running
        free_rows = max(0, self.row_limit - rows)
        return Batch(rows, self.ledger.longest_running_tokens, free_rows, alone=self.others_bytes == 0)

    def _turning_rows(self) -> int:
        """Rows whose departures make room: those that run, or would."""
        return self.ledger.running or self.row_limit or 1

    def _departures_before(self, entry: Entry, now_seconds: float) -> int:
        batch = self._batch()
        fits = self.budget.batch_fits(batch.rows + 1, max(batch.longest_tokens, entry.reserved_tokens))
        free_rows = batch.free_rows if fits else 0
        return max(0, self.ledger.queue.tail_position(entry.priority, now_seconds) + 1 - free_rows)

    def _check_deadline(self, entry: Entry, departures: int, now_seconds: float) -> None:
        seen = self.ledger.engine_seen_seconds
        if entry.deadline_seconds is None or seen is None or now_seconds - seen > RATES_TRUSTED_SECONDS:
            return
        tokens = entry.prompt_tokens if entry.prefill_tokens is None else entry.prefill_tokens
        needed = self.ledger.rates.first_token_seconds(tokens, departures, self._turning_rows())
        left_seconds = entry.deadline_seconds - now_seconds
        if needed is not None and needed / refusals.SPEED_DRIFT > left_seconds:
            raise refusals.deadline_unreachable(left_seconds, needed)
