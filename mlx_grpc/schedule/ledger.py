"""The scheduler's memory: who waits, who holds a row, since when. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable

from mlx_grpc.request import Priority
from mlx_grpc.schedule.admission import Batch, Overtaken
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.deadlines import DeadlineHeap
from mlx_grpc.schedule.entry import Entry, Limits
from mlx_grpc.schedule.queue import WaitingQueue
from mlx_grpc.schedule.rates import Rates
from mlx_grpc.schedule.states import Life, State, Trigger


class UnknownRequest(LookupError):
    """The key is of no request that is alive: a mistake in this server."""


class _Request:
    __slots__ = ("admitted_seconds", "entry", "life")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.life = Life()
        self.admitted_seconds = 0.0


class Ledger:
    """Every request alive, each in one state. Methods raise UnknownRequest, or IllegalTrigger where states
    forbid the trigger."""

    def __init__(self, limits: Limits, budget: KvBudget | None = None, rates: Rates | None = None) -> None:
        self.limits = limits
        self.budget = budget or KvBudget(0, 0)
        self.rates = rates or Rates()
        self.row_limit = limits.max_rows
        self.gather_seconds = limits.gather_seconds
        """As in `limits`, until the engine's device says otherwise."""
        self.others_bytes = 0
        """KV bytes that other engines of the device have reserved: not for these rows now, but not gone for good."""
        self.eligible: frozenset[int] | None = None
        """Who alone may enter now, while the suspects of a crash are tried; None for everybody."""
        self._requests: dict[int, _Request] = {}
        self._running: dict[int, _Request] = {}  # in order of admission
        self._queue = WaitingQueue(limits.ageing_seconds)
        self._deadlines = DeadlineHeap()
        self._overtaken: dict[int, Overtaken] = {}
        self._refused_in_a_row = 0
        self._engine_seen_seconds: float | None = None

    @property
    def waiting(self) -> int:
        """How many wait, those put back by a crash included."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many rows are taken: in prefill, in decode, or leaving."""
        return len(self._running)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of all who wait."""
        return self._queue.tokens

    @property
    def waiting_by_priority(self) -> dict[Priority, int]:
        """How many wait of each class they came with."""
        return self._queue.counts

    @property
    def kv_reserved_bytes(self) -> int:
        """Peak bytes that the running rows may take, as the budget counts them."""
        return self.budget.batch_bytes(len(self._running), self._batch().longest_tokens)

    def state(self, key: int) -> State:
        """Where `key` is; DONE for one that is not alive."""
        request = self._requests.get(key)
        return State.DONE if request is None else request.life.state

    def admitted(self, keys: Iterable[int], now_seconds: float) -> None:
        """These have entered the batch, in this order."""
        for key in keys:
            request = self._get(key)
            request.life.move(Trigger.ADMIT)
            head = self._queue.head()
            if head is not None and head.key != key:
                seen = self._overtaken.get(head.key, Overtaken(0, now_seconds))
                self._overtaken[head.key] = Overtaken(seen.times + 1, seen.since_seconds)
            self._leave_queue(key)
            request.admitted_seconds = now_seconds
            self._running[key] = request

    def first_token(self, key: int, now_seconds: float) -> None:
        """Its prefill is done."""
        self._get(key).life.move(Trigger.FIRST_TOKEN)
        self._engine_seen_seconds = now_seconds

    def finished(self, key: int, now_seconds: float) -> None:
        """The engine ended it and its row is free."""
        self._end_row(key, Trigger.FINISH, now_seconds)

    def removed(self, key: int, now_seconds: float) -> None:
        """The engine took the row out, cancelled or not."""
        self._end_row(key, Trigger.REMOVED, now_seconds)

    def leaving(self, key: int, now_seconds: float) -> None:
        """A cancel was sent to the engine: row and bytes stay taken until `removed` or `finished`.

        Saying it again changes nothing; one that waits is ended at once.
        """
        if not self.cancel_waiting(key):
            self._get(key).life.move(Trigger.CANCEL)
            self._deadlines.discard(key)

    def cancel_waiting(self, key: int) -> bool:
        """End one that waits; False, and nothing done, where it does not."""
        if key not in self._queue:
            return False
        self._requests.pop(key).life.move(Trigger.CANCEL)
        self._leave_queue(key)
        self._deadlines.discard(key)
        return True

    def crashed(self, now_seconds: float) -> tuple[int, ...]:
        """The engine died. Running requests wait again, before all others, in the order in which they were
        admitted.

        Returns their keys. They were accepted, so no limit counts or refuses them. Those that were leaving
        are done.
        """
        back: list[Entry] = []
        for key, request in self._running.items():
            if request.life.move(Trigger.CRASH) is State.WAITING:
                back.append(request.entry)
            else:
                del self._requests[key]
        self._running.clear()
        self._queue.push_front(back)
        return tuple(entry.key for entry in back)

    def record_step(self, seconds: float, decoded_rows: int, prefill_tokens: int) -> None:
        """An engine step ended; see Rates.record_step."""
        self.rates.record_step(seconds, decoded_rows, prefill_tokens)

    def set_row_limit(self, rows: int) -> None:
        """Let at most `rows` run at once from now on (0: none; never above max_rows). Rows that run already
        go on."""
        self.row_limit = max(0, min(rows, self.limits.max_rows))

    def set_budget(self, budget: KvBudget) -> None:
        """Take another budget. Rows that run already go on, and whoever was accepted stays so."""
        self.budget = budget

    def _get(self, key: int) -> _Request:
        try:
            return self._requests[key]
        except KeyError:
            raise UnknownRequest(f"request {key} is not alive") from None

    def _batch(self) -> Batch:
        rows = len(self._running)
        longest = max((request.entry.reserved_tokens for request in self._running.values()), default=0)
        return Batch(rows, longest, max(0, self.row_limit - rows), alone=self.others_bytes == 0)

    def _enter(self, entry: Entry, now_seconds: float) -> int:
        request = self._requests[entry.key] = _Request(entry)
        request.life.move(Trigger.SUBMIT)
        if entry.deadline_seconds is not None:
            self._deadlines.add(entry.key, entry.deadline_seconds)
        return self._queue.push(entry, now_seconds)

    def _leave_queue(self, key: int) -> None:
        self._queue.remove(key)
        self._overtaken.pop(key, None)
        self._refused_in_a_row = 0

    def _end_row(self, key: int, trigger: Trigger, now_seconds: float) -> None:
        request = self._get(key)
        request.life.move(trigger)
        del self._requests[key], self._running[key]
        self._deadlines.discard(key)
        self._engine_seen_seconds = now_seconds
        self.rates.record_finished(now_seconds - request.admitted_seconds)
