"""A call that wants to be accepted, as the scheduler and the engine will see it. Pure."""

from __future__ import annotations

from mlx_grpc.engine.submits import bytes_at_most, row_bytes_limit
from mlx_grpc.errors import NeverFits
from mlx_grpc.schedule.entry import Entry
from mlx_grpc.service.generation.call import Generation


def entry_of(generation: Generation, now_seconds: float, cached_share: float) -> Entry:
    """What the scheduler decides by. `cached_share` is how much of a prompt the prefix cache held at best, lately: a
    deadline is not refused for a prompt that the cache may hold."""
    request = generation.request
    prompt_tokens = len(request.prompt)
    return Entry(
        key=generation.key,
        priority=request.priority,
        prompt_tokens=prompt_tokens,
        reserved_tokens=prompt_tokens + request.max_tokens,
        arrived_seconds=now_seconds,
        deadline_seconds=request.deadline_seconds,
        client=request.client,
        prefill_tokens=prompt_tokens if request.cache.bypass else round(prompt_tokens * (1.0 - cached_share)),
    )


def check_message(generation: Generation) -> None:
    """A row that could never be sent to an engine is not accepted. Raises NeverFits."""
    request = generation.request
    if bytes_at_most(generation.row(), request.max_tokens) > row_bytes_limit():
        raise NeverFits(
            f"prompt and max_tokens together ({len(request.prompt) + request.max_tokens} tokens) are more than a "
            f"message to the engine can carry, {row_bytes_limit()} bytes: send a shorter prompt, or lower max_tokens",
            field="input",
        )
