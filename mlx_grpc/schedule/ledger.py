"""What the scheduler remembers: who waits, who holds a row, since when, and how fast rows end. It decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mlx_grpc.request import Priority
from mlx_grpc.schedule.admission import Overtaken
from mlx_grpc.schedule.deadlines import DeadlineHeap
from mlx_grpc.schedule.entry import Entry
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

    def __init__(self, ageing_seconds: float, rates: Rates | None = None, max_client_rows: int | None = None) -> None:
        self.rates = rates or Rates()
        self.queue = WaitingQueue(ageing_seconds)
        self.deadlines = DeadlineHeap()
        self.overtaken: dict[int, Overtaken] = {}
        self.engine_seen_seconds: float | None = None
        """When the engine last gave a sign of life."""
        self.queue_departures = 0
        """How many have left the queue so far."""
        self.rows_of: Counter[str] = Counter()
        """Rows by client, of those that have any."""
        self._max_client_rows = max_client_rows
        self._requests: dict[int, _Request] = {}
        self._running: dict[int, _Request] = {}  # in order of admission

    @property
    def waiting(self) -> int:
        """How many wait, those put back by a crash included."""
        return len(self.queue)

    @property
    def running(self) -> int:
        """How many rows are taken: in prefill, in decode, or leaving."""
        return len(self._running)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of all who wait."""
        return self.queue.tokens

    @property
    def waiting_by_priority(self) -> dict[Priority, int]:
        """How many wait of each class they came with."""
        return self.queue.counts

    @property
    def longest_running_tokens(self) -> int:
        """The most tokens that a running row has reserved; 0 without rows."""
        return max((request.entry.reserved_tokens for request in self._running.values()), default=0)

    def __contains__(self, key: int) -> bool:
        return key in self._requests

    def state(self, key: int) -> State:
        """Where `key` is; DONE for one that is not alive."""
        request = self._requests.get(key)
        return State.DONE if request is None else request.life.state

    def enter(self, entry: Entry, now_seconds: float) -> int:
        """Let an accepted request wait; returns its place in the queue."""
        request = self._requests[entry.key] = _Request(entry)
        request.life.move(Trigger.SUBMIT)
        if entry.deadline_seconds is not None:
            self.deadlines.add(entry.key, entry.deadline_seconds)
        return self.queue.push(entry, now_seconds)

    def admitted(self, keys: Iterable[int], now_seconds: float) -> None:
        """These have entered the batch, in this order."""
        for key in keys:
            request = self._get(key)
            request.life.move(Trigger.ADMIT)
            self._note_overtaken(key, now_seconds)
            self.queue.take(key, now_seconds)
            self._left_queue(key)
            request.admitted_seconds = now_seconds
            self._running[key] = request
            self.rows_of[request.entry.client] += 1

    def first_token(self, key: int, now_seconds: float) -> None:
        """Its prefill is done."""
        self._get(key).life.move(Trigger.FIRST_TOKEN)
        self.engine_seen_seconds = now_seconds

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
            self.deadlines.discard(key)

    def cancel_waiting(self, key: int) -> bool:
        """End one that waits; False, and nothing done, where it does not."""
        if key not in self.queue:
            return False
        self._requests.pop(key).life.move(Trigger.CANCEL)
        self.queue.remove(key)
        self._left_queue(key)
        self.deadlines.discard(key)
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
        self.rows_of.clear()
        self.queue.push_front(back)
        return tuple(entry.key for entry in back)

    def record_step(self, seconds: float, decoded_rows: int, prefill_tokens: int) -> None:
        """An engine step ended; see Rates.record_step."""
        self.rates.record_step(seconds, decoded_rows, prefill_tokens)

    def _get(self, key: int) -> _Request:
        try:
            return self._requests[key]
        except KeyError:
            raise UnknownRequest(f"request {key} is not alive") from None

    def _note_overtaken(self, key: int, now_seconds: float) -> None:
        """One enters. Whoever is next in the queue is overtaken by it, unless its client has all its rows already."""
        head = self.queue.head()
        if head is None or head.key == key:
            return
        if self._max_client_rows is not None and self.rows_of[head.client] >= self._max_client_rows:
            return
        seen = self.overtaken.get(head.key, Overtaken(0, now_seconds))
        self.overtaken[head.key] = Overtaken(seen.times + 1, seen.since_seconds)

    def _left_queue(self, key: int) -> None:
        self.overtaken.pop(key, None)
        self.queue_departures += 1

    def _end_row(self, key: int, trigger: Trigger, now_seconds: float) -> None:
        request = self._get(key)
        request.life.move(trigger)
        del self._requests[key], self._running[key]
        client = request.entry.client
        self.rows_of[client] -= 1
        if not self.rows_of[client]:
            del self.rows_of[client]
        self.deadlines.discard(key)
        self.engine_seen_seconds = now_seconds
        self.rates.record_finished(now_seconds - request.admitted_seconds)
