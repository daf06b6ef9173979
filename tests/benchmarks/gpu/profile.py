"""Where one decode step's time goes on a GPU: Python, launches, kernels; and what memory alone would allow.

    python -m tests.benchmarks.gpu.profile FOLDER [--rows 32] [--pipelined no] [--mixed] [--changes]

Kernels are counted by torch's profiler, which sees all of the process; without torch that part is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from typing import Any

from mlx_grpc.engine.backend import set_defaults

set_defaults()  # MLX reads them when it is imported

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from mlx_grpc.engine.batch import decoding  # noqa: E402
from tests.benchmarks.gpu.costs import PROMPT_TOKENS, Timed  # noqa: E402

STEPS = 40
COPY_BYTES = 4 * 2**30


def bandwidth_bytes_per_second() -> float:
    """What a copy of a large array reaches, reading and writing."""
    block = mx.zeros((COPY_BYTES // 4,), dtype=mx.float32)
    mx.eval(block)
    best = 0.0
    for _ in range(6):
        began = time.perf_counter()
        mx.eval(block + 1.0)
        best = max(best, 2 * COPY_BYTES / (time.perf_counter() - began))
    return best


class Stopwatch:
    """Milliseconds in each part of `DecodeBatch.start`, by wrapping what it calls."""

    def __init__(self, timed: Timed) -> None:
        self.parts: dict[str, list[float]] = {}
        generator = timed.engine.generator
        batch: Any = generator._decoding
        batch._model = self._wrapped("model's graph", batch._model)
        batch._sampler.sample = self._wrapped("sampler's graph", batch._sampler.sample)
        self._mx = _Wrapped(self)

    def _wrapped(self, name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.parts.setdefault(name, []).append((time.perf_counter() - began) * 1e3)

        return call

    def __enter__(self) -> Stopwatch:
        vars(decoding)["mx"] = self._mx
        return self

    def __exit__(self, *_: object) -> None:
        vars(decoding)["mx"] = mx


class _Wrapped:
    """`mlx.core`, its evaluations timed."""

    def __init__(self, watch: Stopwatch) -> None:
        self.async_eval = watch._wrapped("async_eval: launches", mx.async_eval)
        self.eval = watch._wrapped("eval: wait for the step before", mx.eval)

    def __getattr__(self, name: str) -> Any:
        return getattr(mx, name)


def changing(timed: Timed) -> list[float]:
    """STEPS steps; in each fourth one a row leaves, and two steps later another comes."""
    times = []
    for _ in range(STEPS // 4):
        timed.leave(1)
        times += timed.steps(2)
        timed.enter(1)
        times += timed.steps(2)
    return times


def kernels(timed: Timed, changes: bool) -> dict[str, Any]:
    """Kernels of a step: how many, how long they run, how long the device has none, the longest kinds."""
    try:
        from torch.profiler import ProfilerActivity, profile  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return {"kernels": "torch is not there"}
    timed.steps(8)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        times = changing(timed) if changes else timed.steps(STEPS)
        mx.synchronize()
    spans = []
    by_name: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    runtime: Counter[str] = Counter()
    called: Counter[str] = Counter()
    for event in seen.profiler.kineto_results.events():
        if "CUDA" in str(event.device_type()):
            spans.append((event.start_ns(), event.start_ns() + event.duration_ns()))
            by_name[event.name()[:90]] += event.duration_ns()
            calls[event.name()[:90]] += 1
        else:
            runtime[event.name()] += 1
            called[event.name()] += event.duration_ns()
    busy = covered(spans)
    per_step = 1e6 * STEPS
    return {
        "step_ms_profiled": round(statistics.median(times), 2),
        "step_ms_profiled_mean": round(statistics.mean(times), 2),
        "kernels_a_step": round(len(spans) / STEPS, 1),
        "kernels_busy_ms_a_step": round(busy / per_step, 3),
        "kernels_sum_ms_a_step": round(sum(by_name.values()) / per_step, 3),
        "longest": {
            name: {"ms_a_step": round(spent / per_step, 3), "a_step": round(calls[name] / STEPS, 1)}
            for name, spent in by_name.most_common(14)
        },
        "runtime_calls_a_step": {
            name: {"ms_a_step": round(spent / per_step, 3), "a_step": round(runtime[name] / STEPS, 1)}
            for name, spent in called.most_common(14)
        },
    }


def covered(spans: list[tuple[int, int]]) -> int:
    """How long at least one of them ran."""
    total = end = 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def measure(folder: str, rows: int, pipelined: str, *, mixed: bool, changes: bool) -> dict[str, Any]:
    """All of it, for one count of rows."""
    timed = Timed(folder, rows, pipelined)
    timed.enter(rows, [PROMPT_TOKENS - place % 9 for place in range(rows)] if mixed else None)
    steady = timed.steady()
    network: Any = timed.engine.generator._model
    weights = sum(array.nbytes for array in dict(tree_flatten(network.parameters())).values())
    kv_bytes = rows * (PROMPT_TOKENS + STEPS) * timed.engine.loaded.kv_bytes_per_token
    bandwidth = bandwidth_bytes_per_second()
    found: dict[str, Any] = {
        "rows": rows,
        "step_ms": round(steady, 2),
        "weights_gb": round(weights / 1e9, 2),
        "kv_gb": round(kv_bytes / 1e9, 2),
        "bandwidth_tb_s": round(bandwidth / 1e12, 2),
        "lower_bound_by_bandwidth_ms": round((weights + kv_bytes) / bandwidth * 1e3, 2),
    }
    found |= kernels(timed, changes)
    with Stopwatch(timed) as watch:
        times = timed.steps(STEPS)
    found["step_ms_watched"] = round(statistics.median(times), 2)
    found["parts_ms"] = {name: round(statistics.median(spent), 3) for name, spent in watch.parts.items()}
    timed.leave(rows)
    timed.engine.close()
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--pipelined", choices=("yes", "no"), default="", help="default: as the engine decides")
    parser.add_argument("--mixed", action="store_true", help="prompts of nine lengths, so that rows are padded")
    parser.add_argument("--changes", action="store_true", help="while rows come and go")
    arguments = parser.parse_args()
    chosen = {"mixed": arguments.mixed, "changes": arguments.changes}
    found = measure(arguments.folder, arguments.rows, arguments.pipelined, **chosen)
    print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
