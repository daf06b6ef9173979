"""Looks over the whole server and says what it sees, as one Snapshot. Changes nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque

from mlx_grpc import __version__
from mlx_grpc.observe.process import resident_bytes
from mlx_grpc.observe.snapshot import ModelStatus, Quantiles, RunningRequest, ServerState, Snapshot
from mlx_grpc.request import Priority
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.service.service import Service

MAX_RUNNING_SHOWN = 200
RATE_WINDOW_SECONDS = 5.0

_STATES = {
    ModelState.UNLOADED: ServerState.UNLOADED,
    ModelState.LOADING: ServerState.LOADING,
    ModelState.READY: ServerState.SERVING,
    ModelState.UNLOADING: ServerState.UNLOADED,
    ModelState.FAILED: ServerState.FAILED,
}


class Survey:
    """Takes snapshots; remembers only the token counts that the rate is made from."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started_seconds = time.monotonic()
        self._tokens: deque[tuple[float, int]] = deque([(self._started_seconds, 0)])

    def tick(self) -> Snapshot:
        """A snapshot, and a point for the rate: to be called at even intervals."""
        now_seconds = time.monotonic()
        self._tokens.append((now_seconds, self._service.stats.generated_tokens.total()))
        while len(self._tokens) > 2 and self._tokens[1][0] <= now_seconds - RATE_WINDOW_SECONDS:
            self._tokens.popleft()
        return self.take()

    def take(self) -> Snapshot:
        """The server now."""
        service, stats = self._service, self._service.stats
        models = tuple(self._model(host) for host in service.catalog.hosts)
        priorities: Counter[str] = Counter()
        for model in models:
            priorities.update(model.queue_by_priority)
        state, reason = server_state(service)
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            unix_seconds=time.time(),
            uptime_seconds=time.monotonic() - self._started_seconds,
            state=state,
            reason=reason,
            default_model=service.catalog.default_id,
            models=models,
            queue_depth=sum(model.queue_depth for model in models),
            queue_limit=sum(model.queue_limit for model in models),
            queue_by_priority=dict(priorities),
            active_rows=sum(model.active_rows for model in models),
            row_limit=sum(model.row_limit for model in models),
            tokens_per_second=self._tokens_per_second(),
            kv_reserved_bytes=sum(model.kv_reserved_bytes for model in models),
            kv_used_bytes=sum(model.kv_used_bytes for model in models),
            # One device, and one allocator for all engines on it: the largest budget is that of all.
            kv_budget_bytes=max((model.kv_budget_bytes for model in models), default=0),
            memory_bytes=resident_bytes(os.getpid()),
            restarts=stats.restarts.total(),
            crashes=stats.crashes.total(),
            stalls=stats.stalls.total(),
            resumed=stats.resumed.total(),
            accepted=stats.accepted.total(),
            completed=dict(stats.completed),
            refused=dict(stats.refused),
            failed=dict(stats.failed),
            abandoned=stats.abandoned.total(),
            prompt_tokens=stats.prompt_tokens.total(),
            generated_tokens=stats.generated_tokens.total(),
            queue_seconds=Quantiles.of(stats.queue_seconds),
            first_token_seconds=Quantiles.of(stats.first_token_seconds),
            loop_lag_seconds=stats.loop_lag_seconds,
            worst_loop_lag_seconds=stats.worst_loop_lag_seconds,
            running_count=sum(1 for host in service.catalog.hosts for _ in host.dispatcher.calls),
            running=self._running(),
            recent_errors=tuple(reversed(stats.recent_errors)),
        )

    def _tokens_per_second(self) -> float:
        (first_seconds, first), (last_seconds, last) = self._tokens[0], self._tokens[-1]
        return (last - first) / (last_seconds - first_seconds) if last_seconds > first_seconds else 0.0

    def _model(self, host: ModelHost) -> ModelStatus:
        name, stats = host.source.id, self._service.stats
        dispatcher, scheduler, info = host.dispatcher, host.dispatcher.scheduler, host.info
        return ModelStatus(
            id=name,
            default=name == self._service.catalog.default_id,
            state=host.life.state.value,
            error=host.life.error,
            engine_pid=host.engine_pid,
            device=info.device if info else "",
            batching=info.batching if info else "",
            context_length=host.context_length,
            weights_bytes=info.weights_bytes if info else 0,
            engine_memory_bytes=resident_bytes(host.engine_pid),
            queue_depth=scheduler.ledger.waiting,
            queue_limit=scheduler.limits.max_waiting,
            queue_by_priority={
                priority.name.lower(): count for priority, count in scheduler.ledger.waiting_by_priority.items()
            },
            queue_tokens=scheduler.ledger.waiting_tokens,
            active_rows=scheduler.ledger.running,
            row_limit=scheduler.row_limit,
            kv_reserved_bytes=scheduler.kv_reserved_bytes,
            kv_used_bytes=dispatcher.kv_bytes,
            kv_budget_bytes=0 if scheduler.budget.unlimited else scheduler.budget.total_bytes,
            stalled_seconds=dispatcher.stalled_seconds,
            restarts=stats.restarts[name],
            crashes=stats.crashes[name],
            stalls=stats.stalls[name],
            resumed=stats.resumed[name],
            generated_tokens=stats.generated_tokens[name],
        )

    def _running(self) -> tuple[RunningRequest, ...]:
        """The oldest first."""
        live = [
            (generation, host.dispatcher.scheduler.ledger.state(generation.key))
            for host in self._service.catalog.hosts
            for generation in host.dispatcher.calls
        ]
        live.sort(key=lambda one: one[0].request.arrived_seconds)
        now_seconds = asyncio.get_running_loop().time()
        return tuple(
            RunningRequest(
                generation_id=generation.request.generation_id,
                request_id=generation.request.request_id,
                model=generation.request.model,
                state=state.name.lower(),
                priority=Priority(generation.request.priority).name.lower(),
                age_seconds=now_seconds - generation.request.arrived_seconds,
                prompt_tokens=len(generation.request.prompt),
                generated_tokens=len(generation.output_ids),
                max_tokens=generation.request.max_tokens,
            )
            for generation, state in live[:MAX_RUNNING_SHOWN]
        )


def server_state(service: Service) -> tuple[ServerState, str]:
    """What a call for the default model would meet, and why it would be refused; "" where it would not."""
    if service.draining:
        return ServerState.DRAINING, "the server is going down"
    hosts = {host.source.id: host for host in service.catalog.hosts}
    host = hosts.get(service.catalog.default_id)
    if host is None:
        return ServerState.UNLOADED, "there is no model"
    refusal = host.life.refusal()
    return _STATES[host.life.state], refusal.message if refusal else ""
