"""Raw BatchGenerator, this server over gRPC and mlx_lm.server over HTTP, in one run and alternating rounds.

    make bench ARGS='--quick'
    python -m tests.benchmarks.compare [--quick] [--only streams,seeded] [--out docs/performance]

Every stage prints its table when it is done, and puts it in OUT/results.json in place of its last one, OUT/tables.md,
pictures beside them, and, where there is a page OUT.md with the marks for it, into that. docs/performance.md says what
the figures mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.sources import parse
from tests.benchmarks.compare import giant as compare_giant
from tests.benchmarks.compare import report as compare_report
from tests.benchmarks.compare import scripted as compare_scripted
from tests.benchmarks.compare import stages as compare_stages
from tests.benchmarks.compare.rounds import Clock, Line
from tests.benchmarks.compare.sides import Sides
from tests.benchmarks.compare.stages import QUICK, TINY, WHOLE, Bench

MORE_THAN_ITS_SHARE = 1.2
"""Of the time that is left, which a stage may take: most take less, and leave it to those after them."""

# The stage, its title, and what it needs beside the others.
STAGES: dict[str, tuple[Callable[[Bench], list[Line]], str, float]] = {
    "queue": (compare_scripted.queue, "The waiting queue", 0.01),
    "scripted": (compare_scripted.scripted, "The server's own cost", 0.03),
    "streams": (compare_stages.streams, "Streams that start together, greedy", 0.37),
    "samplers": (compare_stages.samplers, "A sampler for each row", 0.07),
    "seeded": (compare_stages.seeded, "Seeded requests", 0.08),
    "connections": (compare_stages.connections, "New connections at once", 0.14),
    "turns": (compare_stages.turns, "The next turn of a chat", 0.1),
    "giant": (compare_giant.giant, "A giant prompt among running streams", 0.3),
}
SIZES = {"whole": (WHOLE, 39.0), "quick": (QUICK, 4.5), "tiny": (TINY, 1.0)}  # and minutes for all stages


def main() -> None:
    """Parse, run the stages, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_const", const="quick", default="whole", dest="size", help="5 minutes")
    parser.add_argument("--tiny", action="store_const", const="tiny", dest="size", help="only to see that all runs")
    parser.add_argument("--only", default=",".join(STAGES), help="stages with commas between: %(default)s")
    parser.add_argument("--rounds", type=int, help="at most so many; default 5, or 2")
    parser.add_argument("--model", default="", help="a source as `serve --model` takes it; default: the default model")
    parser.add_argument("--out", type=Path, default=Path("docs/performance"))
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - STAGES.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))}: the stages are {', '.join(STAGES)}")
    size, minutes = SIZES[arguments.size]
    if arguments.rounds:
        size = dataclasses.replace(size, rounds=arguments.rounds)
    facts = compare_report.surroundings()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="mlx-grpc-bench.") as work:
        model = resolve(parse(arguments.model))
        with Sides(model.folder, Path(work)) as sides:
            stages = [stage for stage in STAGES if stage in chosen]
            until = time.monotonic() + minutes * 60 * min(1.0, sum(STAGES[stage][2] for stage in stages))
            for number, stage in enumerate(stages):
                run, title, need = STAGES[stage]
                began = time.monotonic()
                share = need / sum(STAGES[later][2] for later in stages[number:])
                seconds = min(1.0, share * MORE_THAN_ITS_SHARE) * max(0.0, until - began)
                lines = run(Bench(sides, size, Clock(began + seconds)))
                print(f"\n### {title} ({time.monotonic() - began:.0f} s)\n\n{compare_report.table(lines)}", flush=True)
                results = compare_report.keep(arguments.out, stage, lines, arguments.size, facts)
                compare_report.write(arguments.out, results, {name: part[1] for name, part in STAGES.items()})


if __name__ == "__main__":
    main()
