"""Between the queue and the engine: carries out what the scheduler decides, and tells each call what the engine did.

    submit  ->  scheduler  ->  plan  ->  engine  ->  step  ->  delivery  ->  calls

Runs in the event loop, never waits, and knows no MLX. One dispatcher serves one model. Its engine comes and goes:
`attach` gives it a worker, `detach` takes a lost one away and puts its rows back into the queue.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from mlx_grpc.bounds.rates import ClientRates
from mlx_grpc.engine.messages import Cancel, RowToken, Step, StepBegan, ToWorker
from mlx_grpc.engine.submits import submits
from mlx_grpc.errors import DeadlinePassed
from mlx_grpc.observe.stats import Stats
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.schedule.states import ROW_STATES, State
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.hosting.acceptance import check_message, entry_of
from mlx_grpc.service.hosting.calls import LiveCalls
from mlx_grpc.service.hosting.delivery import Delivery
from mlx_grpc.service.hosting.memory import DeviceMemory
from mlx_grpc.service.hosting.recovery import Recovery
from mlx_grpc.service.hosting.wakeup import Wakeup

Send = Callable[[ToWorker], None]


class Dispatcher:
    """The queue and the batch of one model. `calls` are those that it has accepted."""

    def __init__(
        self,
        model: str,
        scheduler: Scheduler,
        recovery: Recovery,
        memory: DeviceMemory,
        stats: Stats,
        rates: ClientRates | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.calls = LiveCalls(self._left)
        self.active_rows = 0
        """Rows in the engine's batch, by its own last word."""
        self.kv_bytes = 0
        """What the engine's KV cache takes now."""
        self.last_delivery_seconds = 0.0
        """When the engine last delivered, or last got work after being idle, on the loop's clock."""
        self._model = model
        self._recovery = recovery
        self._memory = memory
        self._stats = stats
        self._rates = rates or ClientRates()
        self._delivery = Delivery(self.calls, recovery)
        self._loop = asyncio.get_running_loop()
        self._send: Send | None = None
        self._most_rows = scheduler.limits.max_rows
        self._expected_seconds = 0.0
        self._keys = itertools.count(1)
        self._preparing: Counter[str] = Counter()
        """Calls by client."""
        self._wakeup = Wakeup(self._pump)
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, generation: Generation) -> None:
        """Accept a call. Raises QueueFull, RateLimited, NeverFits or DeadlineUnreachable, then without any change."""
        generation.key = next(self._keys)
        check_message(generation)
        now_seconds = self._loop.time()
        placement = self.scheduler.submit(entry_of(generation, now_seconds, self._delivery.cached_share), now_seconds)
        self.calls.add(generation, placement)
        self._idle.clear()
        self.changed()

    @contextmanager
    def preparing(self, client: str) -> Iterator[None]:
        """A call is being rendered and tokenized, and will be submitted in the block: it counts as one that waits.

        Raises QueueFull or RateLimited where no call of the client would have a place, whatever it holds.
        """
        self._update_scheduler()
        self.scheduler.check_place(client, self._preparing)
        self._preparing[client] += 1
        try:
            yield
        finally:
            self._preparing[client] -= 1
            if not self._preparing[client]:
                del self._preparing[client]

    def changed(self) -> None:
        """Plan once for all that happens in this turn of the loop, so that calls that come together enter together."""
        self._wakeup.soon()

    async def idle(self) -> None:
        """Returns when no accepted call is left, in the queue or in the engine."""
        await self._idle.wait()

    def close(self) -> None:
        """No timer is left behind."""
        self._wakeup.cancel()

    # The engine.

    @property
    def stalled_seconds(self) -> float:
        """How long the engine has had work and delivered nothing; 0 without work or without an engine."""
        if self._send is None or not self.scheduler.ledger.running:
            return 0.0
        return self._loop.time() - self.last_delivery_seconds

    @property
    def overdue_seconds(self) -> float:
        """How long the engine has delivered nothing, beyond the time that its step is expected to take."""
        return max(0.0, self.stalled_seconds - self._expected_seconds)

    def attach(self, send: Send, most_rows: int) -> None:
        """An engine is ready, for so many rows at once: what waits may enter."""
        self._send = send
        self._most_rows = most_rows
        self._expected_seconds = 0.0
        self.last_delivery_seconds = self._loop.time()
        self.changed()

    def detach(self) -> tuple[int, ...]:
        """The engine is gone. Its rows wait again, in front of all others; returns the keys of those."""
        self._send = None
        self.active_rows = self.kv_bytes = 0
        running = self.scheduler.ledger.crashed(self._loop.time())
        self._reserve()
        self._settle()
        return running

    def on_step(self, step: Step | StepBegan) -> None:
        """Tell each call what the engine did for it, and let rows leave and enter. A step that has only begun, and will
        be long, is waited for."""
        if isinstance(step, StepBegan):
            self._expected_seconds = step.expected_seconds
            return
        ledger, now_seconds = self.scheduler.ledger, self._loop.time()
        self.last_delivery_seconds, self._expected_seconds = now_seconds, 0.0
        self.active_rows, self.kv_bytes = step.active_rows, step.kv_bytes
        self._stats.generated_tokens[self._model] += len(step.tokens)
        ledger.record_step(step.seconds, len(step.tokens), self._delivery.prefill(step.prefill))
        if step.tokens:
            self._recovery.stepped()
        for token in step.tokens:
            if ledger.state(token.row_id) is State.PREFILL:
                ledger.first_token(token.row_id, now_seconds)
        if self._rates.limits_tokens:
            self._charge(step.tokens, now_seconds)
        leaving = self._delivery.tokens(step.tokens, now_seconds)
        for token in step.tokens:
            if token.finish:
                self._row_ended(token.row_id, removed=False)
        for failure in step.failed:
            self._delivery.failure(failure)
            self._row_ended(failure.row_id, removed=True)
        for key in step.removed:
            self._row_ended(key, removed=True)
        for key in leaving:
            self.calls.leave(key)
        self._pump()

    # Inside.

    def _left(self, key: int) -> None:
        """A call has ended that the engine or the queue still holds."""
        self._recovery.ended(key)
        if not self.scheduler.ledger.cancel_waiting(key):
            self.scheduler.ledger.leaving(key, self._loop.time())
            if self._send:
                self._send(Cancel([key]))
        self._settle()
        self.changed()

    def _charge(self, tokens: Iterable[RowToken], now_seconds: float) -> None:
        """Each client pays for what is delivered to it."""
        calls = (self.calls.get(token.row_id) for token in tokens)
        for client, count in Counter(call.request.client for call in calls if call is not None).items():
            self._rates.spend_tokens(client, count, now_seconds)

    def _row_ended(self, key: int, removed: bool) -> None:
        """The engine says that the row is gone: it finished, or was taken out."""
        ledger = self.scheduler.ledger
        if ledger.state(key) in ROW_STATES:
            (ledger.removed if removed else ledger.finished)(key, self._loop.time())
        self.calls.ended(key)
        self._recovery.ended(key)
        self._settle()

    def _pump(self) -> None:
        self._wakeup.cancel()
        self._update_scheduler()
        now_seconds = self._loop.time()
        plan = self.scheduler.plan(now_seconds)
        self.calls.fail_keys(plan.expired, lambda: DeadlinePassed("the call's deadline passed before it was done"))
        self.calls.end_overdue(now_seconds)
        if self._send and plan.admit:
            self._admit(plan.admit, self._send, now_seconds)
        self.calls.tell_queued()
        self._reserve()
        moments = (plan.wake_at_seconds, self.calls.next_limit_seconds)
        self._wakeup.at(min((moment for moment in moments if moment is not None), default=None))

    def _update_scheduler(self) -> None:
        scheduler = self.scheduler
        scheduler.eligible = self._recovery.eligible
        scheduler.set_row_limit(min(self._recovery.row_limit, self._most_rows))
        scheduler.others_bytes = self._memory.others_bytes(self._model)
        scheduler.budget = scheduler.budget.with_total(self._memory.kv_bytes())

    def _admit(self, keys: Sequence[int], send: Send, now_seconds: float) -> None:
        if not self.scheduler.ledger.running:
            self.last_delivery_seconds = now_seconds
        self.scheduler.ledger.admitted(keys, now_seconds)
        for submit in submits(generation.row() for generation in self.calls.enter(keys, now_seconds)):
            send(submit)

    def _reserve(self) -> None:
        self._memory.reserve(self._model, self.scheduler.kv_reserved_bytes)

    def _settle(self) -> None:
        if not self.calls and not self.scheduler.ledger.running and not self.scheduler.ledger.waiting:
            self._idle.set()
