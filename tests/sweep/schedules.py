"""Random schedules: rows of all lengths that arrive, are cancelled and resume at random steps. A schedule is a pure
function of its seed; only the answers come from the model."""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.helpers.models.base import VOCAB_SIZE
from tests.sweep.drive import MAX_ROWS, MOST_STEPS, Drive, Wanted, difference
from tests.sweep.reference import Reference
from tests.sweep.scenarios import PREFIX_CACHE_BYTES, Open, Play

LENGTHS = ((1, 3), (4, 15), (16, 40), (41, 130), (200, 300))
"""Of prompts: below and above the window of 40 tokens, and the smallest chunk of 32."""
LENGTH_WEIGHTS = (3, 3, 4, 2, 1)
CHUNKS = (32, 64, 256)
MOST_ROWS = 12
MOST_TOKENS = 20
MOST_GAP_STEPS = 6


class Arrival(NamedTuple):
    """One row. Its prompt is the beginning of an earlier row's conversation (`follows`, `kept_share` of it) and fresh
    tokens. `output_share` of its answer is there already; it leaves when `cancel_at` tokens were given, if not None."""

    at_step: int
    fresh: tuple[int, ...]
    max_tokens: int
    follows: int | None = None
    kept_share: float = 0.0
    output_share: float = 0.0
    cancel_at: int | None = None


class Schedule(NamedTuple):
    """What happens to one engine."""

    seed: int
    chunk_tokens: int
    prefix_cache_bytes: int
    arrivals: tuple[Arrival, ...]


def make_schedule(seed: int) -> Schedule:
    """The same for the same seed."""
    rnd = random.Random(seed)
    cache_bytes = PREFIX_CACHE_BYTES if rnd.random() < 0.5 else 0
    arrivals: list[Arrival] = []
    step = 0
    for number in range(rnd.randint(3, MOST_ROWS)):
        step += rnd.choice((0, 0, rnd.randint(1, MOST_GAP_STEPS)))
        (band,) = rnd.choices(LENGTHS, LENGTH_WEIGHTS)
        follows = rnd.randrange(number) if number and rnd.random() < 0.4 else None
        max_tokens = rnd.randint(1, MOST_TOKENS)
        arrivals.append(
            Arrival(
                at_step=step,
                fresh=tuple(rnd.randrange(VOCAB_SIZE) for _ in range(rnd.randint(*band))),
                max_tokens=max_tokens,
                follows=follows,
                kept_share=rnd.choice((0.5, 0.9, 1.0)),
                output_share=rnd.random() if rnd.random() < 0.25 else 0.0,
                cancel_at=rnd.randint(0, max_tokens) if rnd.random() < 0.2 else None,
            )
        )
    return Schedule(seed, rnd.choice(CHUNKS), cache_bytes, tuple(arrivals))


def prepare(schedule: Schedule, reference: Reference) -> Play:
    """Rows with their answers, to be played to an engine. A row whose first token is a near tie is left out."""
    rows: list[tuple[Arrival, Wanted]] = []
    conversations: list[list[int]] = []
    for number, arrival in enumerate(schedule.arrivals):
        earlier = conversations[arrival.follows] if arrival.follows is not None else []
        prompt = [*earlier[: int(len(earlier) * arrival.kept_share)], *arrival.fresh]
        answer = reference.answer(prompt, arrival.max_tokens)
        conversations.append([*prompt, *answer.tokens])
        if answer.tokens:
            output_tokens = min(int(len(answer.tokens) * arrival.output_share), len(answer.tokens) - 1)
            rows.append((arrival, Wanted(number, prompt, answer, output_tokens, use_cache=True)))

    def play(open_engine: Open) -> list[str]:
        sizes = {"chunk_tokens": schedule.chunk_tokens, "prefix_cache_bytes": schedule.prefix_cache_bytes}
        with open_engine(**sizes) as drive:
            return _play(drive, rows)

    return play


def _play(drive: Drive, rows: list[tuple[Arrival, Wanted]]) -> list[str]:
    """Rows enter at their step, or as soon after it as one of the batch's places is free, in their order: more wait in
    the scheduler's queue. Cancelled rows are compared as far as they came."""
    waiting, leaving, cancelled = list(rows), dict[int, int](), set[int]()
    for step in range(MOST_STEPS):
        while waiting and waiting[0][0].at_step <= step and drive.engine.active_rows < MAX_ROWS:
            arrival, wanted = waiting.pop(0)
            drive.submit([wanted.row()])
            if arrival.cancel_at is not None:
                leaving[wanted.row_id] = arrival.cancel_at
        due = [row_id for row_id, at in leaving.items() if len(drive.said.get(row_id, [])) >= at]
        cancelled.update(drive.engine.cancel(due))
        leaving = {row_id: at for row_id, at in leaving.items() if row_id not in due}
        if drive.engine.active_rows:
            drive.step()
        elif not waiting:
            break
    else:
        return [f"not done within {MOST_STEPS} steps"]
    compared = (
        difference(wanted, drive.said.get(wanted.row_id, []), ended=wanted.row_id not in cancelled)
        for _, wanted in rows
    )
    return [*drive.failures, *filter(None, compared)]
