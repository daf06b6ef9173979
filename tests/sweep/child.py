"""One model in a process of its own, which its code may end: `python -m tests.sweep.child NAME CASE...`. It prints a
line of JSON for what it learns of the model, and one for each case, as soon as it is known."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from tests.helpers.models.folder import write_model
from tests.sweep.cases import alone_problems, parse
from tests.sweep.reference import Reference
from tests.sweep.scenarios import CHUNK_TOKENS, Open, opener
from tests.sweep.verdict import CRASH, DIFF, OK, verdict

LOAD, ALONE, CACHES, BATCHING = "load", "alone", "caches", "batching"


def main(name: str, cases: list[str]) -> None:
    """Facts first, then the cases, in their order."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch  # where the engine keeps what its tests at load found
        folder = write_model(name, Path(scratch) / name)
        reference = Reference(folder)
        tell(CACHES, ", ".join(reference.caches()))
        tell(ALONE, alone := _alone(reference))
        tell(LOAD, loaded := verdict(_load, opener(folder, pipelined=False)))
        playable = loaded == OK and not alone.startswith(CRASH)
        for case in map(parse, cases if playable else []):
            tell(str(case), verdict(case.prepare(reference), opener(folder, pipelined=case.pipelined)))


def _alone(reference: Reference) -> str:
    try:
        problems = alone_problems(reference)
    except Exception as error:  # whatever mlx_lm's code for this type raises
        return f"{CRASH} {type(error).__name__}: {error}"
    return f"{DIFF} {problems[0]}" if problems else OK


def _load(open_engine: Open) -> list[str]:
    with open_engine(chunk_tokens=CHUNK_TOKENS) as drive:
        tell(BATCHING, getattr(drive.engine.loaded, "batching", ""))
    return []


def tell(what: str, said: str) -> None:
    """A line for the parent."""
    sys.stdout.write(json.dumps([what, said]) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
