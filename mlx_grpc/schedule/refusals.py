"""The scheduler's refusals, in the words of the error tree."""

from __future__ import annotations

from mlx_grpc.errors import DeadlineUnreachable, NeverFits, QueueFull, RateLimited
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.entry import Entry

MIN_RETRY_SECONDS = 0.05
MAX_RETRY_SECONDS = 60.0
UNMEASURED_RETRY_SECONDS = 1.0

SPEED_DRIFT = 2.0
"""A deadline is unreachable when it is missed even at this many times the measured rate: machines were seen
to drift by as much within minutes, and a call that was refused wrongly is worse than one that runs out."""


def retry_after(seconds: float | None) -> float:
    """Within bounds; None: nothing was measured."""
    seconds = UNMEASURED_RETRY_SECONDS if seconds is None else seconds
    return min(max(seconds, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)


def client_waiting(most: int, retry_seconds: float | None) -> RateLimited:
    """One client may have `most` requests waiting. `retry_seconds` as in `queue_full`."""
    seconds = retry_after(retry_seconds)
    return RateLimited(
        f"this client has {most} requests waiting, which is all that it may: try again in {seconds:.2f} s",
        retry_after_seconds=seconds,
        metadata={"limit": "client_waiting"},
    )


def queue_full(waiting: int, retry_seconds: float | None) -> QueueFull:
    """`retry_seconds` is the time until there is a place for this caller too; None: nothing was measured."""
    seconds = retry_after(retry_seconds)
    return QueueFull(
        f"the queue is full ({waiting} requests wait): try again in {seconds:.2f} s",
        retry_after_seconds=seconds,
    )


def never_fits(entry: Entry, budget: KvBudget) -> NeverFits:
    """The field at fault is max_tokens where the prompt with one token would fit, else the input."""
    needed = budget.batch_bytes(1, entry.reserved_tokens)
    field = "stop.max_tokens" if budget.can_ever_fit(entry.prompt_tokens + 1) else "input"
    what = "lower max_tokens" if field == "stop.max_tokens" else "send a shorter prompt"
    return NeverFits(
        f"prompt and max_tokens together ({entry.reserved_tokens} tokens) need {needed} bytes of KV cache, "
        f"and the budget is {budget.total_bytes}: {what}",
        field=field,
        metadata={"needed_bytes": str(needed), "budget_bytes": str(budget.total_bytes)},
    )


def deadline_unreachable(left_seconds: float, first_token_seconds: float | None) -> DeadlineUnreachable:
    """`first_token_seconds` is the estimate that forbids it; None: the deadline has passed already."""
    if first_token_seconds is None:
        return DeadlineUnreachable("the deadline had passed when the request came: give the call more time")
    return DeadlineUnreachable(
        f"the first token would take about {first_token_seconds:.2f} s and the deadline leaves "
        f"{left_seconds:.2f} s: give the call more time, or try when the server is less busy",
        metadata={"first_token_seconds": f"{first_token_seconds:.3f}", "left_seconds": f"{left_seconds:.3f}"},
    )
