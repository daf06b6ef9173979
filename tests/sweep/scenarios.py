"""What is done to every type of model: six ways in which rows share the device. Each scenario makes its rows with the
reference, in one thread, and then plays them to an engine, in another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from mlx_grpc.engine.messages import SamplingParams
from tests.sweep.drive import Drive, Wanted, driving
from tests.sweep.reference import Prompts, Reference

CHUNK_TOKENS, LONG_CHUNK_TOKENS = 32, 256
PREFIX_CACHE_BYTES = 64 << 20


class Open(Protocol):
    """Opens an engine for the model and the order of steps that are being tested."""

    def __call__(self, *, chunk_tokens: int, prefix_cache_bytes: int = 0) -> AbstractContextManager[Drive]: ...


Play = Callable[[Open], list[str]]
"""Opens an engine, plays the scenario to it, and returns what was wrong."""


class Scenario(NamedTuple):
    """`prepare` belongs to the reference's thread, what it returns to the engine's."""

    title: str
    prepare: Callable[[Reference, int], Play]


def opener(folder: Path, *, pipelined: bool) -> Open:
    """Engines for this folder. Pipelined is a GPU's order of steps."""
    return partial(driving, folder, pipelined=pipelined)


def _wanted(prompts: Prompts, shapes: list[tuple[int, int]]) -> list[Wanted]:
    """Rows of (prompt's length, tokens to generate)."""
    return [Wanted(row_id, *prompts.answered(*shape)) for row_id, shape in enumerate(shapes)]


def _three_lengths(reference: Reference, seed: int) -> Play:
    wanted = _wanted(Prompts(reference, seed), [(5, 24), (40, 24), (23, 24)])

    def play(open_engine: Open) -> list[str]:
        with open_engine(chunk_tokens=CHUNK_TOKENS) as drive:
            drive.run(wanted)
            return drive.problems(wanted)

    return play


def _staggered(reference: Reference, seed: int) -> Play:
    prompts = Prompts(reference, seed)
    wanted = _wanted(prompts, [(60, 30), (9, 20), (130, 20)])
    first, second, third = (each.row() for each in wanted)
    leaving = Wanted(100, *prompts.answered(30, 40)).row()

    def play(open_engine: Open) -> list[str]:
        with open_engine(chunk_tokens=CHUNK_TOKENS) as drive:
            drive.submit([first])
            drive.until(lambda: len(drive.said.get(first.row_id, [])) >= 6 or not drive.engine.active_rows)
            drive.submit([leaving])
            drive.submit([second])
            for _ in range(5):
                drive.step()
            drive.engine.cancel([leaving.row_id])
            drive.submit([third])
            drive.drain()
            return drive.problems(wanted)

    return play


def _short(reference: Reference, seed: int) -> Play:
    wanted = _wanted(Prompts(reference, seed), [(1, 8), (2, 8), (2, 8), (3, 8)])

    def play(open_engine: Open) -> list[str]:
        with open_engine(chunk_tokens=CHUNK_TOKENS) as drive:
            drive.submit([each.row() for each in wanted[:2]])
            drive.step()
            drive.submit([each.row() for each in wanted[2:]])
            drive.drain()
            return drive.problems(wanted)

    return play


def _prefix_cache(reference: Reference, seed: int) -> Play:
    prompts = Prompts(reference, seed)
    base, answer = prompts.answered(40, 24)
    opening = Wanted(50, base, answer, use_cache=True)
    shapes = [([*base, *answer.tokens], 20, 12), (base[:30], 11, 12), (base, 0, 12), (base[:30], 300, 8)]
    alone = [
        Wanted(row_id, *prompts.answered(fresh, tokens, after), use_cache=True)
        for row_id, (after, fresh, tokens) in enumerate(shapes)
    ]
    together = [each._replace(row_id=each.row_id + 10) for each in alone]

    def play(open_engine: Open) -> list[str]:
        with open_engine(chunk_tokens=CHUNK_TOKENS, prefix_cache_bytes=PREFIX_CACHE_BYTES) as drive:
            for each in (opening, *alone):
                drive.run([each])
            drive.run(together)
            return drive.problems([opening, *alone, *together])

    return play


def _padded_prefill(reference: Reference, seed: int) -> Play:
    wanted = _wanted(Prompts(reference, seed), [(600, 10), (300, 10), (7, 10)])

    def play(open_engine: Open) -> list[str]:
        with open_engine(chunk_tokens=LONG_CHUNK_TOKENS) as drive:
            drive.run(wanted)
            return drive.problems(wanted)

    return play


def _seeded(reference: Reference, seed: int) -> Play:
    prompts = Prompts(reference, seed)
    rows = []
    for row_id, length in enumerate((5, 40, 23)):
        sampling = SamplingParams(temperature=0.8, top_p=0.95, seed=seed + row_id)
        plain = Wanted(row_id, *prompts.answered(length, 1)).row()
        rows.append(msgspec.structs.replace(plain, max_tokens=16, sampling=sampling, use_cache=False))

    def play(open_engine: Open) -> list[str]:
        said = []
        with open_engine(chunk_tokens=CHUNK_TOKENS) as drive:
            for batch in [[row] for row in rows] + [rows]:
                drive.submit(batch)
                drive.drain()
                said.append({row.row_id: [token.token for token in drive.said.pop(row.row_id, [])] for row in batch})
            together = said.pop()
            alone = {row_id: tokens for each in said for row_id, tokens in each.items()}
            different = [f"row {row_id}: {together[row_id]} for {alone[row_id]}" for row_id in alone]
            return drive.failures + [
                text for row_id, text in zip(alone, different, strict=True) if alone[row_id] != together[row_id]
            ]

    return play


SCENARIOS: dict[str, Scenario] = {
    "A": Scenario("three lengths together", _three_lengths),
    "B": Scenario("arrivals one after the other, with a cancel", _staggered),
    "C": Scenario("prompts of 1 to 3 tokens", _short),
    "D": Scenario("prefix cache: continued, branched, repeated, one by one and together", _prefix_cache),
    "E": Scenario("prompts of 600, 300 and 7 tokens prefilled together", _padded_prefill),
    "F": Scenario("seeded sampling, alone and together", _seeded),
}
