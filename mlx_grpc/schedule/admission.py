"""Who enters the batch now, by rows and by memory: one pure function.

In the order of the queue, whoever fits is chosen. Past the first one that does not fit, smaller ones may
overtake it, so that memory is not left idle; but only so often and for so long. Then nobody enters until it
fits: rows end, so it does. With no row at all, here or in another engine, the first of the queue enters
whatever the budget says: it was accepted under a budget that it fitted, and waiting longer cannot give it more room. So
a budget that shrank never makes anybody wait for ever.

A client that has as many rows as one client may have is passed over: that is nobody's overtaking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.entry import Entry, Limits

LOOK_AHEAD = 64
"""How many entries behind the first that does not fit are tried."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows taken now, the longest reservation among them in tokens, and the rows still free.

    `alone`: no other engine holds memory of the device. `rows_of` has the rows of each client that has any.
    """

    rows: int
    longest_tokens: int
    free_rows: int
    alone: bool = True
    rows_of: Mapping[str, int] = field(default_factory=dict)

    def full_clients(self, limits: Limits) -> set[str]:
        """Those that have as many rows as one client may have."""
        most = limits.max_client_rows
        return set() if most is None else {client for client, rows in self.rows_of.items() if rows >= most}


@dataclass(frozen=True, slots=True)
class Overtaken:
    """How often, and since when, others have entered before one that came first and did not fit."""

    times: int
    since_seconds: float


def overtakes_left(overtaken: Overtaken | None, limits: Limits, now_seconds: float) -> int:
    """How many more may enter before it."""
    if overtaken is None:
        return limits.max_overtakes
    if now_seconds - overtaken.since_seconds >= limits.max_overtake_seconds:
        return 0
    return max(0, limits.max_overtakes - overtaken.times)


def choose(
    waiting: Iterable[Entry],
    batch: Batch,
    budget: KvBudget,
    limits: Limits,
    overtaken: Mapping[int, Overtaken],
    now_seconds: float,
    full: set[str],
) -> list[Entry]:
    """Those of `waiting` that enter now, in its order. Expired ones are passed over.

    `full` are the batch's full clients, of whom none is in `waiting`; those that become full here are added.
    """
    chosen: list[Entry] = []
    taken: Counter[str] = Counter()
    most_of_one = batch.free_rows + batch.rows if limits.max_client_rows is None else limits.max_client_rows
    rows, longest = batch.rows, batch.longest_tokens
    overtakes: int | None = None  # None until one does not fit
    tries = LOOK_AHEAD
    for entry in waiting:
        if len(chosen) >= batch.free_rows or overtakes == 0 or tries == 0:
            break
        if entry.is_expired(now_seconds):
            continue
        padded = max(longest, entry.reserved_tokens)
        fits = (rows == 0 and batch.alone) or budget.batch_fits(rows + 1, padded)
        if overtakes is not None:
            tries -= 1
        if fits:
            chosen.append(entry)
            rows, longest = rows + 1, padded
            taken[entry.client] += 1
            if batch.rows_of.get(entry.client, 0) + taken[entry.client] >= most_of_one:
                full.add(entry.client)
            if overtakes is not None:
                overtakes -= 1
        elif overtakes is None:
            overtakes = overtakes_left(overtaken.get(entry.key), limits, now_seconds)
    return chosen
