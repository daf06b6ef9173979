"""What each thing that an engine does costs on this device, without a server: a step, a prefill, a row that enters or
leaves. Prints a JSON object; the figures go into `simulate_admission`, and into docs.

    python -m tests.benchmarks.gpu.costs FOLDER [--rows 8 32 64] [--pipelined no]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Sequence

from mlx_grpc.engine.backend import set_defaults
from mlx_grpc.engine.messages import Load, Row, SamplingParams
from tests.benchmarks.gpu.model import random_prompts

PROMPT_TOKENS = 128
STEPS_AFTER = 8
"""Steps in which a change of the batch is still felt."""
REPEATS = 8


class Timed:
    """An engine, and how long its steps take."""

    def __init__(self, folder: str, max_rows: int, pipelined: str = "") -> None:
        set_defaults()  # MLX reads them when it is imported
        from mlx_grpc.engine.mlx_engine import open_mlx

        began = time.perf_counter()
        self.engine = open_mlx(Load(folder, max_rows))
        self.load_seconds = time.perf_counter() - began
        if pipelined:
            self.engine.generator.pipelined = pipelined == "yes"
        self._ids = itertools.count(1)
        self.rows: list[int] = []

    def enter(self, count: int, tokens: Sequence[int] | None = None, sampling: SamplingParams | None = None) -> None:
        """Rows that go on for ever; `tokens`: the length of each prompt."""
        rows = []
        for length in tokens or [PROMPT_TOKENS] * count:
            number = next(self._ids)
            (prompt,) = random_prompts(1, length, number)
            rows.append(Row(number, prompt, [], 1 << 30, 0, [], sampling or SamplingParams(), use_cache=False))
        self.rows += [row.row_id for row in rows]
        assert not self.engine.submit(rows)

    def leave(self, count: int) -> None:
        """The oldest rows."""
        leaving, self.rows = self.rows[:count], self.rows[count:]
        self.engine.cancel(leaving)

    def steps(self, count: int) -> list[float]:
        """Milliseconds of each."""
        times = []
        for _ in range(count):
            began = time.perf_counter()
            self.engine.step()
            times.append((time.perf_counter() - began) * 1e3)
        return times

    def steady(self) -> float:
        """Milliseconds of a step in which nothing changes."""
        self.steps(8)
        return statistics.median(self.steps(24))

    def felt(self, steady_ms: float) -> float:
        """Milliseconds that the change just made costs over all the steps in which it is felt."""
        return round(sum(self.steps(STEPS_AFTER)) - STEPS_AFTER * steady_ms, 1)


def measure(folder: str, rows: Sequence[int], pipelined: str) -> dict[str, object]:
    """All of it."""
    timed = Timed(folder, 512, pipelined)
    found: dict[str, object] = {"load_seconds": round(timed.load_seconds, 2)}
    prefill: dict[int, list[float]] = {}
    for count in (1, 2, 4, 8, 16, 32, 64):
        for _ in range(3):
            timed.enter(count)
            prefill.setdefault(count, []).append(round(timed.steps(1)[0], 1))
            timed.leave(count)
            timed.steps(1) if timed.rows else None
    found["prefill_ms"] = prefill
    for count in rows:
        found[f"{count} rows"] = _changes(timed, count)
    timed.engine.close()
    return found


def sampled(folder: str, rows: Sequence[int]) -> dict[int, float]:
    """Milliseconds of a step in which every row has a top-p of its own."""
    timed = Timed(folder, max(rows))
    found = {}
    for count in rows:
        for number in range(count):
            timed.enter(1, sampling=SamplingParams(temperature=1.0, top_p=0.8 + 0.19 * number / count, seed=number))
        found[count] = round(timed.steady(), 2)
        timed.leave(count)
        timed.steps(1)
    return found


def _changes(timed: Timed, rows: int) -> dict[str, object]:
    """A steady step with so many rows, and what rows cost that come and go beside them."""
    timed.enter(rows)
    timed.steps(4)
    steady = timed.steady()
    found: dict[str, object] = {"step_ms": round(steady, 2)}

    def entered(lengths: Sequence[int]) -> float:
        timed.enter(len(lengths), lengths)
        felt = timed.felt(steady)
        timed.leave(len(lengths))
        timed.steps(STEPS_AFTER)
        return felt

    for entering in (1, 4, 8):
        found[f"enter_{entering}_extra_ms"] = [entered([PROMPT_TOKENS] * entering) for _ in range(REPEATS)]
    found["enter_1_of_another_length_extra_ms"] = [entered([100 + 7 * number]) for number in range(REPEATS)]
    leaving = []
    for _ in range(REPEATS):
        timed.enter(2)
        timed.steps(STEPS_AFTER)
        for _ in range(2):
            timed.leave(1)
            leaving.append(timed.felt(steady))
    found["leave_1_extra_ms"] = leaving
    timed.leave(len(timed.rows))
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--pipelined", choices=("yes", "no"), default="", help="default: as the engine decides")
    parser.add_argument("--top-p", action="store_true", help="only a step of each count of rows, with a top-p for each")
    arguments = parser.parse_args()
    if arguments.top_p:
        print(json.dumps(sampled(arguments.folder, arguments.rows)), flush=True)
        return
    print(json.dumps(measure(arguments.folder, arguments.rows, arguments.pipelined)), flush=True)


if __name__ == "__main__":
    main()
