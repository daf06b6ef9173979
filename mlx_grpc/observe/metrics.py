"""The server in Prometheus' words, made when it is asked for, from one snapshot and the counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mlx_grpc.observe.histogram import Histogram
from mlx_grpc.observe.snapshot import ModelStatus, ServerState, Snapshot
from mlx_grpc.observe.stats import Stats

CONTENT_TYPE = "text/plain; version=0.0.4"

# Gauges and counters of one model, with what each says; the name of the metric has the unit.
_GAUGES: dict[str, tuple[str, Callable[[ModelStatus], float | None]]] = {
    "batch_rows": ("Rows of the batch that are taken", lambda model: model.active_rows),
    "batch_rows_limit": ("Rows that may run at once now", lambda model: model.row_limit),
    "queue_depth_limit": ("Requests that may wait", lambda model: model.queue_limit),
    "queue_prompt_tokens": ("Prompt tokens of the requests that wait", lambda model: model.queue_tokens),
    "kv_reserved_bytes": ("What the KV caches may take at their peak", lambda model: model.kv_reserved_bytes),
    "kv_used_bytes": ("What the KV caches take, by the engine's last word", lambda model: model.kv_used_bytes),
    "kv_budget_bytes": ("What the KV caches may take; 0: no limit", lambda model: model.kv_budget_bytes),
    "engine_resident_bytes": ("The engine process's resident memory", lambda model: model.engine_memory_bytes),
    "stall_seconds": ("Since the engine delivered, with work in flight", lambda model: model.stalled_seconds),
    "model_ready": ("1 when a call would be taken now", lambda model: model.state == "ready"),
}
_MODEL_COUNTERS: dict[str, tuple[str, Callable[[Stats], Mapping[str, int]]]] = {
    "engine_restarts": ("Engines started again after a loss", lambda stats: stats.restarts),
    "engine_crashes": ("Engines lost", lambda stats: stats.crashes),
    "engine_stalls": ("Engines that the watchdog killed", lambda stats: stats.stalls),
    "requests_resumed": ("Requests that went on in another engine", lambda stats: stats.resumed),
    "requests_accepted": ("Requests accepted", lambda stats: stats.accepted),
    "requests_abandoned": ("Accepted requests that their client left", lambda stats: stats.abandoned),
    "prompt_tokens": ("Tokens of accepted prompts", lambda stats: stats.prompt_tokens),
    "cached_prompt_tokens": ("Prompt tokens that the prefix cache held", lambda stats: stats.cached_prompt_tokens),
    "generated_tokens": ("Tokens sampled", lambda stats: stats.generated_tokens),
}
_REASON_COUNTERS: dict[str, tuple[str, Callable[[Stats], Mapping[str, int]]]] = {
    "requests_refused": ("Requests refused before they were accepted", lambda stats: stats.refused),
    "requests_failed": ("Accepted requests that ended with an error", lambda stats: stats.failed),
    "requests_completed": ("Requests that ended well, by finish reason", lambda stats: stats.completed),
}


class Metrics(Collector):
    """Its own registry: nothing of the process's global one is in it."""

    def __init__(self, take: Callable[[], Snapshot], stats: Stats) -> None:
        self._take = take
        self._stats = stats
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> bytes:
        """The text that Prometheus scrapes, as CONTENT_TYPE."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the registry would take a snapshot to ask."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        snapshot = self._take()
        yield from self._of_the_server(snapshot)
        yield from self._of_models(snapshot)
        yield from self._counters([model.id for model in snapshot.models])
        yield _histogram(
            "queue_seconds", "From a call's arrival to its place in the batch", self._stats.queue_histogram
        )
        yield _histogram(
            "first_token_seconds", "From a call's arrival to its first token", self._stats.first_token_histogram
        )

    def _of_the_server(self, snapshot: Snapshot) -> Iterable[Metric]:
        yield InfoMetricFamily("mlx_grpc_build", "The server's version", {"version": snapshot.version})
        states = GaugeMetricFamily("mlx_grpc_state", "1 for the state that the server is in", labels=["state"])
        for state in ServerState:
            states.add_metric([state.value], snapshot.state is state)
        yield states
        yield _gauge("uptime_seconds", "Since the server started", snapshot.uptime_seconds)
        yield _gauge("resident_bytes", "The server process's resident memory", snapshot.memory_bytes or 0)
        yield _gauge("tokens_per_second", "Tokens sampled a second, of late", snapshot.tokens_per_second)
        yield _gauge("event_loop_lag_seconds", "How late the event loop was", snapshot.loop_lag_seconds)
        yield _gauge("event_loop_worst_lag_seconds", "At worst in the last minute", snapshot.worst_loop_lag_seconds)

    def _of_models(self, snapshot: Snapshot) -> Iterable[Metric]:
        depth = GaugeMetricFamily("mlx_grpc_queue_depth", "Requests that wait", labels=["model", "priority"])
        for model in snapshot.models:
            for priority, count in model.queue_by_priority.items():
                depth.add_metric([model.id, priority], count)
        yield depth
        for name, (help_text, value_of) in _GAUGES.items():
            family = GaugeMetricFamily(f"mlx_grpc_{name}", help_text, labels=["model"])
            for model in snapshot.models:
                value = value_of(model)
                if value is not None:
                    family.add_metric([model.id], value)
            yield family

    def _counters(self, models: list[str]) -> Iterable[Metric]:
        # A counter that has not counted is there with 0: its first step is then a rate.
        for label, counters, keys in (("model", _MODEL_COUNTERS, models), ("reason", _REASON_COUNTERS, [])):
            for name, (help_text, counts_of) in counters.items():
                family = CounterMetricFamily(f"mlx_grpc_{name}", help_text, labels=[label])
                for key, count in {**dict.fromkeys(keys, 0), **counts_of(self._stats)}.items():
                    family.add_metric([key], count)
                yield family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mlx_grpc_{name}", help_text, value)


def _histogram(name: str, help_text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(f"mlx_grpc_{name}", help_text, histogram.buckets(), histogram.sum_seconds)
