"""Deadlines under overload: more calls than can be done, each with less time than it needs."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from typing import Any

from mlx_grpc.check.calls import at_once, options, prompt, whole
from mlx_grpc.check.outcome import Failed
from mlx_grpc.check.subject import Subject, line
from mlx_grpc.errors import DeadlineExceeded, DeadlinePassed, DeadlineUnreachable, IntakeFull, QueueFull, RateLimited

CALLS = 64
DEADLINE_SECONDS = 1.0
TIMES_TOO_MUCH = 2.0
"""A call alone would need its deadline so many times over, by the speed that was measured."""
LATE_SECONDS = 5.0
"""How long after its deadline a call may still be without an end: this machine may be slow itself."""
CLEAR_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.1
DONE = "done"
LATE = "DEADLINE_EXCEEDED"
"""Without a reason: the client's own end of gRPC saw it first."""
FULL = (QueueFull, IntakeFull, RateLimited)
IN_TIME = {DONE, LATE, DeadlineUnreachable.reason, DeadlinePassed.reason, *(kind.reason for kind in FULL)}


async def deadlines(subject: Subject) -> str:
    """Every call ends in time: done, DEADLINE_EXCEEDED, or refused by a full queue; then the server is free again."""
    used, context_length = await subject.context_length(prompt(subject, CALLS)["prompt"])
    if 1 not in subject.speeds:
        raise Failed("no call alone was measured, so no deadline can be chosen")
    tokens, deadline_seconds = size(subject.speeds[1].tokens_per_second, context_length - used - 1)
    calls = [_one(subject, number, tokens, deadline_seconds) for number in range(CALLS)]
    ends = await asyncio.gather(*calls)
    late = max(seconds for _, seconds in ends) - deadline_seconds
    if late > LATE_SECONDS:
        raise Failed(f"a call ended {late:.1f} s after its deadline of {deadline_seconds:.2f} s")
    counts = Counter(kind for kind, _ in ends)
    if wrong := [kind for kind in counts if kind not in IN_TIME]:
        raise Failed(f"{counts[wrong[0]]} of {CALLS} calls ended with {wrong[0]}")
    await _cleared(subject)
    after = await at_once(subject, [whole])
    said = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return f"{CALLS} calls with {deadline_seconds:.2f} s for {tokens} tokens: {said}; then one in {after.seconds:.2f} s"


def size(tokens_per_second: float, room_tokens: int) -> tuple[int, float]:
    """How many tokens to ask for, and the deadline in seconds: too little for one call alone, by this speed."""
    wanted = math.ceil(tokens_per_second * DEADLINE_SECONDS * TIMES_TOO_MUCH)
    tokens = max(1, min(wanted, room_tokens))
    return tokens, min(DEADLINE_SECONDS, max(0.05, tokens / tokens_per_second / TIMES_TOO_MUCH))


async def _one(subject: Subject, number: int, tokens: int, deadline_seconds: float) -> tuple[str, float]:
    """How the call ended, and after how long."""
    request: dict[str, Any] = prompt(subject, number) | options(subject, number, tokens)
    began_seconds = time.monotonic()
    try:
        await subject.client.generate(**request, timeout_seconds=deadline_seconds)
        kind = DONE
    except DeadlineExceeded as error:
        kind = error.reason or LATE
    except FULL as error:
        kind = error.reason if error.retry_after_seconds is not None else line(error)
    except Exception as error:
        kind = line(error)
    return kind, time.monotonic() - began_seconds


async def _cleared(subject: Subject) -> None:
    """Where the status can be asked: none of our calls is left in the server."""
    if subject.settings.admin is None:
        return
    ends_seconds = time.monotonic() + CLEAR_SECONDS
    ours = f"check-{subject.run_id}-"
    while True:
        status = await asyncio.to_thread(subject.status)
        left = sum(str(one.get("request_id")).startswith(ours) for one in status.get("running", ()))
        if not left:
            return
        if time.monotonic() > ends_seconds:
            raise Failed(f"{left} calls still run {CLEAR_SECONDS:.0f} s after their deadline")
        await asyncio.sleep(LOOK_EVERY_SECONDS)
