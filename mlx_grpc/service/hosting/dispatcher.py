"""Between the queue and the engine: carries out what the scheduler decides, and tells each call what the engine did.

Runs in the event loop, never waits, and knows no MLX. One dispatcher serves one model. Its engine comes and goes:
`attach` gives it a worker, `detach` takes a lost one away and puts its rows back into the queue.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence

from mlx_grpc.engine.messages import RowFailed, Step, Submit
from mlx_grpc.errors import DeadlinePassed, InternalError, MlxGrpcError, NonfiniteLogits
from mlx_grpc.observe.stats import Stats
from mlx_grpc.request import Queued
from mlx_grpc.schedule.entry import Entry
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.schedule.states import State
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.hosting.live_calls import LiveCalls, Send
from mlx_grpc.service.hosting.memory import DeviceMemory
from mlx_grpc.service.hosting.recovery import Recovery

log = logging.getLogger(__name__)

CACHED_SHARE_FADE = 0.98
"""Per prompt: after 34 prompts without a hit, half is still hoped for."""


class Dispatcher(LiveCalls):
    """The queue and the batch of one model."""

    def __init__(
        self, model: str, scheduler: Scheduler, recovery: Recovery, memory: DeviceMemory, stats: Stats
    ) -> None:
        super().__init__(scheduler, recovery)
        self.active_rows = 0
        """Rows in the engine's batch, by its own last word."""
        self.kv_bytes = 0
        self.memory_bytes = 0
        """What the engine's KV cache, and all that it holds, take now."""
        self.last_delivery_seconds = 0.0
        """When the engine last delivered, or last got work after being idle, on the loop's clock."""
        self._model = model
        self._memory = memory
        self._stats = stats
        self._cached_share = 0.0
        self._keys = itertools.count(1)
        self._pump_due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, generation: Generation) -> None:
        """Accept a call. Raises QueueFull, NeverFits or DeadlineUnreachable, and then nothing has changed."""
        request = generation.request
        generation.key = next(self._keys)
        now_seconds = self._loop.time()
        placement = self.scheduler.submit(
            Entry(
                key=generation.key,
                priority=request.priority,
                prompt_tokens=len(request.prompt),
                reserved_tokens=len(request.prompt) + request.max_tokens,
                arrived_seconds=now_seconds,
                deadline_seconds=request.deadline_seconds,
                prefill_tokens=self._likely_prefill_tokens(generation),
            ),
            now_seconds,
        )
        self._live[generation.key] = generation
        self._untold[generation.key] = Queued(placement.position, placement.estimated_wait_seconds)
        self._idle.clear()
        self.changed()

    def changed(self) -> None:
        """Plan once for all that happens in this turn of the loop, so that calls that come together enter together."""
        if self._pump_due is None:
            self._pump_due = self._loop.call_soon(self._pump)

    def close(self) -> None:
        """No timer is left behind."""
        for handle in (self._pump_due, self._timer):
            if handle:
                handle.cancel()
        self._pump_due = self._timer = None

    # The engine.

    @property
    def attached(self) -> bool:
        """Whether there is an engine."""
        return self._send is not None

    @property
    def stalled_seconds(self) -> float:
        """How long the engine has had work and delivered nothing; 0 without work or without an engine."""
        if self._send is None or not self.scheduler.ledger.running:
            return 0.0
        return self._loop.time() - self.last_delivery_seconds

    def attach(self, send: Send) -> None:
        """An engine is ready: what waits may enter."""
        self._send = send
        self.last_delivery_seconds = self._loop.time()
        self.changed()

    def detach(self) -> tuple[int, ...]:
        """The engine is gone. Its rows wait again, in front of all others; returns the keys of those."""
        self._send = None
        self.active_rows = self.kv_bytes = self.memory_bytes = 0
        running = self.scheduler.ledger.crashed(self._loop.time())
        self._reserve()
        self._settle()
        return running

    def on_step(self, step: Step) -> None:
        """Tell each call what the engine did for it, and let rows leave and enter."""
        now_seconds = self._loop.time()
        self.last_delivery_seconds = now_seconds
        self.active_rows, self.kv_bytes, self.memory_bytes = step.active_rows, step.kv_bytes, step.memory_bytes
        self._stats.generated_tokens[self._model] += len(step.tokens)
        prefilled_tokens = self._deliver_prefill(step)
        self.scheduler.ledger.record_step(step.seconds, len(step.tokens), prefilled_tokens)
        if step.tokens:
            self._recovery.stepped()
        leaving = self._deliver_tokens(step, now_seconds)
        for failure in step.failed:
            self._row_failed(failure)
        for key in step.removed:
            self._row_ended(key, removed=True)
        for key in leaving:
            self._leave(key)
        self._pump()

    # Inside.

    def _likely_prefill_tokens(self, generation: Generation) -> int:
        """A deadline is not refused for a prompt that the cache may hold: the best share seen lately counts as
        cached."""
        tokens = len(generation.request.prompt)
        return tokens if generation.request.cache.bypass else round(tokens * (1.0 - self._cached_share))

    def _deliver_prefill(self, step: Step) -> int:
        """Returns how many prompt tokens the step processed."""
        processed = 0
        for progress in step.prefill:
            generation = self._live.get(progress.row_id)
            if generation is not None:
                processed += generation.prefilled(progress)
                if progress.processed == progress.total:
                    share = progress.cached / progress.total
                    self._cached_share = max(share, self._cached_share * CACHED_SHARE_FADE)
        return processed

    def _deliver_tokens(self, step: Step, now_seconds: float) -> list[int]:
        """Returns the keys of rows that ended here and are still in the engine."""
        leaving = []
        for token in step.tokens:
            generation = self._live.get(token.row_id)
            if generation is not None:
                if self.scheduler.ledger.state(token.row_id) is State.PREFILL:
                    self.scheduler.ledger.first_token(token.row_id, now_seconds)
                generation.token(token, now_seconds)
                self._recovery.progress(token.row_id)
                if generation.ended and not token.finish:
                    leaving.append(token.row_id)
            if token.finish:
                self._row_ended(token.row_id, removed=False)
        return leaving

    def _row_failed(self, failure: RowFailed) -> None:
        generation = self._live.get(failure.row_id)
        if generation is not None:
            generation.fail(_error_of(failure, generation.request.generation_id))
        self._row_ended(failure.row_id, removed=True)

    def _pump(self) -> None:
        if self._pump_due is not None:
            self._pump_due.cancel()
            self._pump_due = None
        now_seconds = self._loop.time()
        scheduler = self.scheduler
        scheduler.eligible = self._recovery.eligible
        scheduler.set_row_limit(self._recovery.row_limit)
        scheduler.others_bytes = self._memory.others_bytes(self._model)
        scheduler.budget = scheduler.budget.with_total(self._memory.kv_bytes())
        plan = scheduler.plan(now_seconds)
        self.fail_keys(plan.expired, lambda: DeadlinePassed("the call's deadline passed before it was done"))
        self._end_overdue(now_seconds)
        if self._send and plan.admit:
            self._admit(plan.admit, self._send, now_seconds)
        for key, event in self._untold.items():
            self._live[key].queued(event)
        self._untold.clear()
        self._reserve()
        self._set_timer(plan.wake_at_seconds)

    def _admit(self, keys: Sequence[int], send: Send, now_seconds: float) -> None:
        if not self.scheduler.ledger.running:
            self.last_delivery_seconds = now_seconds
        self.scheduler.ledger.admitted(keys, now_seconds)
        entering = [self._live[key] for key in keys]
        for generation in entering:
            self._untold.pop(generation.key, None)
            generation.admitted(now_seconds)
            if generation.time_limit_seconds is not None:
                self._limited[generation.key] = generation
        send(Submit([generation.row() for generation in entering]))

    def _reserve(self) -> None:
        self._memory.reserve(self._model, self.scheduler.kv_reserved_bytes)

    def _set_timer(self, wake_at_seconds: float | None) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        limits = [limit for g in self._limited.values() if (limit := g.time_limit_seconds) is not None]
        moments = [moment for moment in (wake_at_seconds, min(limits, default=None)) if moment is not None]
        if moments:
            self._timer = self._loop.call_at(min(moments), self._pump)


def _error_of(failure: RowFailed, generation_id: str) -> MlxGrpcError:
    if not failure.finite:
        return NonfiniteLogits("the model's logits for this request are not finite, so that it cannot go on")
    log.error("%s: the engine could not take it: %s", generation_id, failure.reason)
    return InternalError(
        f"the engine could not take the request: {failure.reason}", metadata={"error_id": generation_id}
    )
