"""What a step's sampling costs: ours against mlx_lm's, in one run and alternating rounds.

    python tests/benchmarks/bench_sampler.py [--rows 16 64] [--vocab 49152] [--rounds 5]

The logits are random with a language model's shape: a few likely tokens over a long tail. mlx_lm's side does what its
GenerationBatch does: log-probabilities for all, then one call where rows share a sampler, else a call a row. A ratio
over 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import make_sampler

from mlx_grpc.engine.messages import Row, SamplingParams
from mlx_grpc.engine.sampling.sampler import BatchSampler

Step = Callable[[], list[mx.array]]


def language_like(rows: int, vocab: int, sharpness: float) -> mx.array:
    """[rows, vocab] float32 logits that fall with the logarithm of a token's rank, in random order, with noise."""
    rank = mx.argsort(mx.random.uniform(shape=(rows, vocab)), axis=-1) + 1
    return -sharpness * mx.log(rank) + mx.random.normal((rows, vocab))


def our_step(logits: mx.array, settings: list[dict[str, Any]], top_logprobs: int = -1) -> Step:
    rows = list(range(len(settings)))
    sampler = BatchSampler(logits.shape[-1])
    for i in rows:
        sampling = SamplingParams(seed=i, **settings[i])
        sampler.add(Row(i, [1, 2, 3], [], 10**9, 0, [], sampling, top_logprobs=top_logprobs))
    inputs = mx.zeros((len(rows),), dtype=mx.uint32)
    return lambda: sampler.sample(logits, rows, inputs).arrays()


def mlx_lm_step(logits: mx.array, settings: list[dict[str, Any]]) -> Step:
    def own(setting: dict[str, Any]) -> Callable[[mx.array], mx.array]:
        sampler: Callable[[mx.array], mx.array] = make_sampler(
            **{"temp" if name == "temperature" else name: x for name, x in setting.items()}
        )
        return sampler

    shared = all(setting == settings[0] for setting in settings)
    samplers = [own(settings[0])] if shared else [own(setting) for setting in settings]

    def step() -> list[mx.array]:
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        if shared:
            return [samplers[0](logprobs), logprobs]
        return [mx.concatenate([s(logprobs[i : i + 1]) for i, s in enumerate(samplers)]), logprobs]

    return step


def milliseconds(step: Step, repeats: int) -> float:
    """The mean time of a step, the steps queued one behind the other as the engine does."""
    started = time.perf_counter()
    for _ in range(repeats):
        mx.async_eval(step())  # type: ignore[no-untyped-call]
    mx.synchronize()
    return (time.perf_counter() - started) / repeats * 1e3


def scenarios(rows: int) -> dict[str, list[dict[str, Any]]]:
    return {
        "greedy": [{"temperature": 0.0}] * rows,
        "temperature 0.8": [{"temperature": 0.8}] * rows,
        "one top-p": [{"temperature": 0.8, "top_p": 0.9}] * rows,
        "a top-p each": [{"temperature": 0.8, "top_p": 0.8 + 0.19 * i / rows} for i in range(rows)],
        "a top-k each": [{"temperature": 0.8, "top_k": 20 + i} for i in range(rows)],
        "a min-p each": [{"temperature": 0.8, "min_p": 0.02 + 0.001 * i} for i in range(rows)],
    }


def compare(rows: int, vocab: int, rounds: int, repeats: int, sharpness: float) -> None:
    logits = language_like(rows, vocab, sharpness)
    mx.eval(logits)
    print(f"\n{rows} rows x {vocab}, median of {rounds} rounds, ms a step")
    print(f"{'':18}{'ours':>9}{'mlx_lm':>9}{'ratio':>8}  (ratio's range)")
    for name, settings in scenarios(rows).items():
        ours, theirs = our_step(logits, settings), mlx_lm_step(logits, settings)
        milliseconds(ours, 1), milliseconds(theirs, 1)
        pairs = [(milliseconds(ours, repeats), milliseconds(theirs, repeats)) for _ in range(rounds)]
        ratios = [b / a for a, b in pairs]
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:18}{mine:9.2f}{other:9.2f}{statistics.median(ratios):8.2f}  {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="steps in a round")
    parser.add_argument("--sharpness", type=float, default=1.6, help="how fast likelihood falls with rank")
    options = parser.parse_args()
    mx.random.seed(0)
    print(f"MLX {version('mlx')}, {mx.default_device()}")
    for rows in options.rows:
        compare(rows, options.vocab, options.rounds, options.repeats, options.sharpness)


if __name__ == "__main__":
    main()
