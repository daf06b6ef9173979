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

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from mlx_grpc.errors import QueueFull
from mlx_grpc.request import Queued
from mlx_grpc.schedule import refusals, waits
from mlx_grpc.schedule.admission import Batch, choose
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.entry import Entry, Limits, Plan
from mlx_grpc.schedule.ledger import Ledger, UnknownRequest
from mlx_grpc.schedule.places import Held, has_place
from mlx_grpc.schedule.rates import Rates

__all__ = ["Entry", "Limits", "Plan", "Scheduler", "UnknownRequest"]

_NONE: Mapping[str, int] = MappingProxyType({})


class Scheduler:
    """Decides for one engine. What it decides by is told to it; what happened is written into `ledger`, by its caller
    and by `submit` and `apply`."""

    def __init__(self, limits: Limits, budget: KvBudget | None = None, rates: Rates | None = None) -> None:
        self.ledger = Ledger(limits.ageing_seconds, rates, limits.max_client_rows)
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

        Raises NeverFits, DeadlineUnreachable, QueueFull or RateLimited, and then keeps nothing of it; ValueError for a
        key alive already. The queue is full when more would be left waiting after the next plan than `places` allows
        this client, of requests or of prompt tokens: those that the plan admits do not count, so with `max_waiting` 0 a
        request that can run at once is accepted. RateLimited: more of this one client's than `max_client_waiting`.
        """
        if entry.key in self.ledger:
            raise ValueError(f"request {entry.key} is alive already")
        if not self.budget.can_ever_fit(entry.reserved_tokens):
            raise refusals.never_fits(entry, self.budget)
        if entry.is_expired(now_seconds):
            raise refusals.deadline_unreachable(0.0, None)
        self._check_place_of(entry, now_seconds)
        batch, rows = self._batch(), self._turning_rows()
        fits = self.budget.batch_fits(batch.rows + 1, max(batch.longest_tokens, entry.reserved_tokens))
        departures = waits.departures_before(
            self.ledger, self.limits, entry, batch.free_rows if fits else 0, rows, now_seconds
        )
        waits.check_deadline(self.ledger, entry, departures, rows, now_seconds)
        position = self.ledger.enter(entry, now_seconds)
        return Queued(position, self.ledger.rates.estimated_wait_seconds(departures, rows))

    def check_place(self, client: str = "", preparing: Mapping[str, int] = _NONE) -> None:
        """Raises QueueFull or RateLimited where `submit` would do so for any entry of the client, whatever it is.

        For a caller to whom it costs much to make an entry. `preparing` others, by client, are being made, and get
        places first.
        """
        queue, entering = self.ledger.queue, self._entering_at_most()
        waiting, tokens = queue.held_by(client)
        # Which of them enter, with their tokens, is known only when there is an entry: a client may then be as well off
        # as with its first.
        mine = waiting + preparing.get(client, 0) + 1 - entering
        self._check_client_waiting(mine)
        total = sum(preparing.values()) + 1
        left = Held(queue.limited_count + total - entering, 0 if entering else queue.limited_tokens + total)
        clients = len({client, *queue.clients, *preparing})
        held = Held(max(1, mine), tokens + preparing.get(client, 0) + 1)
        if not has_place(self.limits, left, held, clients, is_first=mine <= 1 or entering > 0):
            raise self._queue_full()

    def plan(self, now_seconds: float) -> Plan:
        """What to do now. Changes nothing: asked twice, it answers the same.

        `expired` holds those whose deadline has come, waiting or with a row; those leaving already are left
        out.
        """
        expired, wake_at_seconds = self.ledger.deadlines.due(now_seconds)
        chosen = self._choose(now_seconds)
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

    def _choose(self, now_seconds: float) -> list[Entry]:
        if self.ledger.running >= self.row_limit:
            return []
        batch, eligible = self._batch(), self.eligible
        full = batch.full_clients(self.limits)
        waiting = self.ledger.queue.order(now_seconds, full)
        if eligible is not None:
            waiting = (entry for entry in waiting if entry.key in eligible)
        return choose(waiting, batch, self._budget_now(), self.limits, self.ledger.overtaken, now_seconds, full)

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

    def _check_place_of(self, entry: Entry, now_seconds: float) -> None:
        queue = self.ledger.queue
        waiting, tokens = queue.held_by(entry.client)
        left = Held(queue.limited_count + 1, queue.limited_tokens + entry.prompt_tokens)
        mine = Held(waiting + 1, tokens + entry.prompt_tokens)
        clients = len(queue.clients) + (waiting == 0)
        most = self.limits.max_client_waiting
        if (most is None or mine.count <= most) and has_place(self.limits, left, mine, clients, is_first=not waiting):
            return
        # In the place that it would get: one of high priority may take the room of several that wait.
        queue.push(entry, now_seconds)
        try:
            self._check_place_among(entry, self._choose(now_seconds))
        finally:
            queue.remove(entry.key)

    def _check_place_among(self, entry: Entry, chosen: list[Entry]) -> None:
        """`entry` has been put into the queue; `chosen` would enter now."""
        queue = self.ledger.queue
        entering = [one for one in chosen if queue.is_limited(one.key)]
        rows = Counter(one.client for one in entering)
        waiting, tokens = queue.held_by(entry.client)
        tokens -= sum(one.prompt_tokens for one in entering if one.client == entry.client)
        mine = Held(waiting - rows[entry.client], tokens)
        enters = any(one.key == entry.key for one in entering)
        if not enters:
            self._check_client_waiting(mine.count)
        left = Held(
            queue.limited_count - len(entering),
            queue.limited_tokens - sum(one.prompt_tokens for one in entering),
        )
        clients = len(queue.clients) - sum(queue.held_by(client)[0] == count for client, count in rows.items())
        if not has_place(self.limits, left, mine, clients, is_first=enters or mine.count <= 1):
            raise self._queue_full()

    def _check_client_waiting(self, mine: int) -> None:
        most = self.limits.max_client_waiting
        if most is not None and mine > most:
            raise refusals.client_waiting(most, self._retry_seconds())

    def _queue_full(self) -> QueueFull:
        return refusals.queue_full(self.ledger.queue.limited_count, self._retry_seconds())

    def _retry_seconds(self) -> float | None:
        # Each refusal is told to come one departure after the one before, or all would come back at once.
        departures = self.ledger.queue_departures
        refused = self._refused_since[0] + 1 if self._refused_since[1] == departures else 1
        self._refused_since = (refused, departures)
        return self.ledger.rates.estimated_wait_seconds(refused, self._turning_rows())

    def _batch(self) -> Batch:
        rows = self.ledger.running
        free_rows = max(0, self.row_limit - rows)
        longest = self.ledger.longest_running_tokens
        return Batch(rows, longest, free_rows, alone=self.others_bytes == 0, rows_of=self.ledger.rows_of)

    def _turning_rows(self) -> int:
        """Rows whose departures make room: those that run, or would."""
        return self.ledger.running or self.row_limit or 1
