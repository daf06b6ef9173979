"""Raw BatchGenerator, this server and mlx_lm.server on a GPU: SmolLM2-1.7B's shape, random bfloat16 weights, prompts of
128 tokens and 128 new ones, alternating rounds of one run.

    python -m tests.benchmarks.gpu --tokenizer FOLDER [--only streams,arrivals] [--rounds 5] [--out OUT]

OUT is docs/performance_gpu unless named. As in `compare`, every stage prints its table when it is done and puts it
into OUT and its page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from mlx_grpc.bench.load import open_loop, poisson_arrivals
from mlx_grpc.bench.prompts import Share, make_asks
from mlx_grpc.bench.record import Ask, Record
from mlx_grpc.bench.stats import summarise
from tests.benchmarks.compare import report as compare_report
from tests.benchmarks.compare.rounds import Clock, Line, alternate
from tests.benchmarks.compare.sides import INCUMBENT, OURS, RAW, Sides
from tests.benchmarks.compare.stages import WHOLE, Bench

TOKENS = 128
SIDES = (RAW, OURS, INCUMBENT)
REQUESTS_IN_TRACE = 160
INCUMBENT_UP_TO = 32
"""Streams. Beyond, mlx_lm.server takes minutes, and nothing is asked of ours there that needs it."""
SERVE = "tests.benchmarks.gpu.serve"
ALL_DAY = Clock(float("inf"))


def _asks(stage: str, count: int, number: int, *, new_tokens: int = TOKENS, temperature: float = 0.0) -> list[Ask]:
    seed = random.Random(f"{stage} {count} {number}").getrandbits(48)
    return make_asks([Share(TOKENS, new_tokens)], count, seed, temperature=temperature)


def streams(bench: Bench, rates: Sequence[float]) -> list[Line]:
    """Greedy streams that start together."""
    lines = []
    for count in bench.size.streams:
        aim = "≥ 0.95 of raw" + (", ≥ 3.5 times mlx_lm.server" if count == 32 else "")
        line = Line(f"{count} streams", "tokens/s", aim=aim)
        sides = SIDES if count <= INCUMBENT_UP_TO else (RAW, OURS)
        for number in (-2, -1):  # as many rows and as long as what is measured, so that every kernel is compiled
            for side in sides:
                bench.run(side, _asks("warm", count, number))

        def measure(side: str, number: int, line: Line = line, count: int = count) -> None:
            line.add(side, *bench.run(side, _asks("streams", count, number)))
            print(line.name, side, line.figures[side][-1], flush=True)

        alternate(bench.size.rounds, ALL_DAY, sides, measure)
        lines.append(line)
    return lines


def samplers(bench: Bench, rates: Sequence[float]) -> list[Line]:
    """A top-p for each of 64 rows; raw has one sampler for all, which is the quickest that it can do."""
    line = Line("64 rows: a top-p each; raw: one for all", "tokens/s", aim="≥ raw")

    def asks(number: int) -> list[Ask]:
        made = _asks("samplers", 64, number, temperature=1.0)
        return [replace(ask, top_p=0.8 + 0.19 * place / 64) for place, ask in enumerate(made)]

    def measure(side: str, number: int) -> None:
        if side == RAW:
            shared = bench.sides.raw(asks(number), shared_sampler=True)
            line.add(RAW, shared["tokens"] / shared["seconds"])
        else:
            line.add(OURS, *bench.run(OURS, asks(number)))
        print(line.name, side, line.figures[side][-1], flush=True)

    bench.run(OURS, asks(-1))
    bench.sides.raw(asks(-1), shared_sampler=True)
    alternate(bench.size.rounds, ALL_DAY, (RAW, OURS), measure)
    return [line]


def arrivals(bench: Bench, rates: Sequence[float]) -> list[Line]:
    """Requests that arrive as a Poisson process: tokens a second from the first arrival to the last end. Raw inserts
    each prompt when it arrives."""
    lines = []
    for rate in rates:
        line = Line(f"{rate:g} arrivals/s", "tokens/s", aim="≥ 1.5 times raw where ours has about 32 rows busy")
        busy: dict[str, list[float]] = {RAW: [], OURS: []}
        firsts: list[float] = []

        def measure(
            side: str,
            number: int,
            rate: float = rate,
            line: Line = line,
            busy: dict[str, list[float]] = busy,
            firsts: list[float] = firsts,
        ) -> None:
            asks = _asks(f"arrivals {rate}", REQUESTS_IN_TRACE, number)
            moments = poisson_arrivals(rate, REQUESTS_IN_TRACE, number)
            if side == RAW:
                answer = bench.sides.raw(asks, arrivals=moments)
                line.add(RAW, answer["tokens"] / (answer["seconds"] - moments[0]))
                busy[RAW].append(answer["rows"])
                print(line.name, side, line.figures[side][-1], flush=True)
                return
            records = asyncio.run(_trace(bench, asks, moments))
            summary = summarise(records)
            line.add(OURS, summary.tokens_per_second, summary.failed)
            alive = sum(record.ended_seconds - record.arrived_seconds for record in records)
            busy[OURS].append(alive / summary.seconds)
            firsts.append(summary.first.p50)
            print(line.name, side, line.figures[side][-1], flush=True)

        alternate(bench.size.rounds, ALL_DAY, (RAW, OURS), measure)
        line.note = (
            f"{TOKENS * rate:,.0f} tokens/s are asked for; rows busy in the mean: raw {median(busy[RAW]):.0f}, "
            f"mlx-grpc {median(busy[OURS]):.0f}; mlx-grpc's first token after {median(firsts):.3f} s in the median"
        )
        lines.append(line)
    return lines


async def _trace(bench: Bench, asks: Sequence[Ask], moments: Sequence[float]) -> list[Record]:
    async with bench.sides.driver(OURS) as driver:
        return await open_loop(driver, asks, moments)


def crowds(bench: Bench, rates: Sequence[float]) -> list[Line]:
    """Many at once, each over a connection of its own: none fails."""
    lines = []
    for count in (64, 256):
        line = Line(f"{count} new connections at once", "tokens/s", aim="0 failures")

        def measure(side: str, number: int, line: Line = line, count: int = count) -> None:
            line.add(side, *bench.run(side, _asks("crowds", count, number, new_tokens=32), new_connections=True))

        alternate(bench.size.rounds, ALL_DAY, (OURS,), measure)
        lines.append(line)
    return lines


STAGES: dict[str, tuple[Callable[[Bench, Sequence[float]], list[Line]], str]] = {
    "streams": (streams, "Streams that start together, greedy"),
    "samplers": (samplers, "A sampler for each row"),
    "arrivals": (arrivals, "Arrivals over time"),
    "crowds": (crowds, "Many at once"),
}


def main() -> None:
    """Parse, run the stages, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a model folder to take the tokenizer from")
    parser.add_argument("--only", default=",".join(STAGES), help="stages with commas between: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="8,32,64")
    parser.add_argument("--rates", default="30,40,50", help="arrivals a second: %(default)s")
    parser.add_argument("--steps", type=Path, help="where the server's log of its steps goes")
    parser.add_argument("--out", type=Path, default=Path("docs/performance_gpu"))
    arguments = parser.parse_args()
    facts = compare_report.surroundings() | {"GPU": _gpu()}
    rates = [float(rate) for rate in arguments.rates.split(",")]
    counts = tuple(int(count) for count in arguments.streams.split(","))
    size = replace(WHOLE, rounds=arguments.rounds, prompt_tokens=TOKENS, streams=counts)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes below end too
    ours = [sys.executable, "-m", SERVE, *(["--steps", str(arguments.steps)] if arguments.steps else [])]
    print(json.dumps(facts), flush=True)
    with tempfile.TemporaryDirectory(prefix="mlx-grpc-bench.") as work:
        make = [sys.executable, "-m", "tests.benchmarks.gpu.model", str(Path(work) / "model")]
        subprocess.run([*make, "--tokenizer", str(arguments.tokenizer)], check=True)
        with Sides(arguments.tokenizer, Path(work), ours) as sides:
            for stage in arguments.only.split(","):
                run, title = STAGES[stage]
                began = time.monotonic()
                lines = run(Bench(sides, size, ALL_DAY), rates)
                print(f"\n### {title} ({time.monotonic() - began:.0f} s)\n\n{compare_report.table(lines)}", flush=True)
                results = compare_report.keep(arguments.out, stage, lines, "whole", facts)
                compare_report.write(arguments.out, results, {name: part[1] for name, part in STAGES.items()})


def _gpu() -> str:
    import mlx.core as mx

    return str(mx.device_info().get("device_name", mx.default_device()))


if __name__ == "__main__":
    main()
