"""How long one that comes now would wait, and whether its deadline can be met."""

from __future__ import annotations

import math

from mlx_grpc.schedule import refusals
from mlx_grpc.schedule.entry import Entry, Limits
from mlx_grpc.schedule.ledger import Ledger

RATES_TRUSTED_SECONDS = 60.0
"""How long after the engine's last sign of life its rates may refuse a deadline. Were it for ever, one slow
start could refuse every call with a deadline, nothing would run, and nothing better would be measured."""


def departures_before(
    ledger: Ledger, limits: Limits, entry: Entry, free_rows: int, rows: int, now_seconds: float
) -> int:
    """How many of `rows` rows leave before it enters; `free_rows` are there for it, or for those before it.

    What others have waiting of better classes is before it only until it has aged; and of its client's own rows, where
    these are limited, some may have to leave as well.
    """
    own, turns, better = ledger.queue.ahead(entry.priority, now_seconds, entry.client)
    if better:
        until_aged = ledger.rates.departures_within(limits.ageing_seconds * entry.priority, rows)
        if until_aged < better:
            better = math.ceil(until_aged)
    departures = max(0, own + turns + better + 1 - free_rows)
    if limits.max_client_rows is not None:
        own_departures = ledger.rows_of[entry.client] + own + 1 - limits.max_client_rows
        departures = max(departures, own_departures * rows // limits.max_client_rows)
    return departures


def check_deadline(ledger: Ledger, entry: Entry, departures: int, rows: int, now_seconds: float) -> None:
    """Raises DeadlineUnreachable where by measured rates the first token cannot come in time."""
    seen = ledger.engine_seen_seconds
    if entry.deadline_seconds is None or seen is None or now_seconds - seen > RATES_TRUSTED_SECONDS:
        return
    tokens = entry.prompt_tokens if entry.prefill_tokens is None else entry.prefill_tokens
    needed = ledger.rates.first_token_seconds(tokens, departures, rows)
    left_seconds = entry.deadline_seconds - now_seconds
    if needed is not None and needed / refusals.SPEED_DRIFT > left_seconds:
        raise refusals.deadline_unreachable(left_seconds, needed)
