"""Sweeps models, each in child processes: what ends a child ends one case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.sweep.cases import Case
from tests.sweep.child import ALONE, BATCHING, CACHES, LOAD
from tests.sweep.verdict import CRASH, DIFF, LOADERROR, OK

ROOT = Path(__file__).resolve().parents[2]
CHILD = [sys.executable, "-m", "tests.sweep.child"]
JOBS = 2
PATIENCE_SECONDS = 900.0
FACTS = (CACHES, ALONE, LOAD)


@dataclass
class Report:
    """What is known of one model. Verdicts are those of `verdict.verdict`."""

    name: str
    caches: str = ""
    batching: str = ""
    alone: str = ""
    """Whether mlx_lm itself gives one answer: ok, DIFF or CRASH."""
    load: str = ""
    verdicts: dict[Case, str] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """What is not right. Where mlx_lm alone fails, a refusal is; where it has several answers, any of ours is that
        comes."""
        if self.alone.startswith(CRASH):
            return [f"{self.name} is served, but mlx_lm alone: {self.alone}"] if self.load == OK else []
        if self.load != OK:
            refused = self.load.startswith(LOADERROR) and self.alone != OK
            return [] if refused else [f"{self.name}: {self.load}"]
        wrong = (CRASH, DIFF) if self.alone == OK else (CRASH,)
        return [f"{self.name} {case}: {said}" for case, said in self.verdicts.items() if said.startswith(wrong)]


def sweep(names: Iterable[str], cases: Sequence[Case], tell: Callable[[Report], None] | None = None) -> list[Report]:
    """Reports in the order of the names, two models at a time. `tell` hears of each when it is done."""

    def one(name: str) -> Report:
        report = sweep_one(name, cases)
        if tell is not None:
            tell(report)
        return report

    with ThreadPoolExecutor(JOBS, thread_name_prefix="sweep") as pool:
        return list(pool.map(one, names))


def sweep_one(name: str, cases: Sequence[Case]) -> Report:
    """One child, and another one for the cases that are left when that has died."""
    told: dict[str, str] = {}
    while True:
        left = [case for case in cases if str(case) not in told]
        end = ""
        for line in _child([name, *map(str, left)]):
            if isinstance(line, str):
                end = line
            else:
                told.setdefault(*line)
        unknown = [what for what in (*FACTS, *map(str, left)) if what not in told]
        if not unknown or told.get(LOAD, OK) != OK or told.get(ALONE, OK).startswith(CRASH):
            break
        # It died in the first of them; without the facts it would do so again.
        if unknown[0] in FACTS:
            told[LOAD if ALONE in told else ALONE] = f"{CRASH} {end}"
            break
        told[unknown[0]] = f"{CRASH} {end}"
    verdicts = {case: told.get(str(case), told.get(LOAD, CRASH)) for case in cases}
    return Report(
        name, told.get(CACHES, ""), told.get(BATCHING, ""), told.get(ALONE, CRASH), told.get(LOAD, CRASH), verdicts
    )


def _child(arguments: list[str]) -> Iterator[tuple[str, str] | str]:
    """What it told, and how it ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*CHILD, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        output, code, errors = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else ""
        code, errors = None, f"no end within {PATIENCE_SECONDS:.0f} s"
    for line in output.splitlines():
        if line.startswith("["):
            what, said = json.loads(line)
            yield what, said
    last = errors.strip().splitlines()[-1:] or [""]
    yield f"exit code {code}: {last[0][:200]}"
