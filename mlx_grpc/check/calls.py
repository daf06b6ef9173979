"""Calls for tokens, many at once: each is held to what it must bring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_grpc.check.outcome import Failed, Speed
from mlx_grpc.check.subject import Subject, line
from mlx_grpc.client import Generation
from mlx_grpc.errors import IntakeFull, ModelLoading, QueueFull, RateLimited
from mlx_grpc.request import Completed, Delta, Finished, Started


@dataclass(frozen=True, slots=True)
class Burst:
    """Calls that ran at once, all of which brought what they must. `refused`: told to come back later, and did."""

    answers: tuple[Generation, ...]
    refused: int
    seconds: float

    @property
    def speed(self) -> Speed:
        """Of all of them together."""
        tokens = sum(answer.usage.completion_tokens for answer in self.answers)
        return Speed(len(self.answers), tokens, self.seconds)

    def __str__(self) -> str:
        speed = self.speed
        text = f"{speed.tokens} tokens in {self.seconds:.2f} s, {speed.tokens_per_second:.1f} tokens/s"
        return text + (f"; {self.refused} refusals of a full queue, each with a time to come back" * bool(self.refused))


def options(subject: Subject, number: int, tokens: int) -> dict[str, Any]:
    """What every call sends besides its input: greedy, and so many tokens exactly."""
    return {
        **({"model": subject.settings.model} if subject.settings.model else {}),
        "request_id": f"check-{subject.run_id}-{number}",
        "temperature": 0.0,
        "max_tokens": tokens,
        "ignore_eos": True,
    }


def prompt(subject: Subject, number: int) -> dict[str, Any]:
    """A short input that no other call has."""
    return {"prompt": f"Run {subject.run_id}, story {number}. Once upon a time there was"}


async def whole(subject: Subject, **request: Any) -> Generation:
    """By Generate."""
    return await subject.client.generate(**request)


async def streamed(subject: Subject, **request: Any) -> Generation:
    """By StreamGenerate; the order of the events is held to the contract."""
    kinds: list[type] = []
    async with subject.client.stream(**request) as stream:
        async for event in stream:
            kinds.append(type(event))
        if kinds.count(Started) != 1 or kinds.count(Finished) != 1 or kinds[-1] is not Completed:
            raise Failed(f"a stream's events were {', '.join(kind.__name__ for kind in kinds)[-200:]}")
        if Delta not in kinds or kinds.index(Started) > kinds.index(Delta):
            raise Failed("a stream brought no delta after started")
        return await stream.result()


Way = Callable[..., Awaitable[Generation]]


async def at_once(
    subject: Subject, ways: Sequence[Way], inputs: Sequence[dict[str, Any]] | None = None, tokens: int | None = None
) -> Burst:
    """One call for each way, together. Raises Failed when one of them fails, or brings too few tokens."""
    tokens = tokens or subject.settings.tokens
    inputs = inputs or [prompt(subject, number) for number in range(len(ways))]
    began_seconds = time.monotonic()
    calls = [
        _until_taken(subject, way, {**one, **options(subject, number, tokens)})
        for number, (way, one) in enumerate(zip(ways, inputs, strict=True))
    ]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    seconds = time.monotonic() - began_seconds
    errors = [one for one in ended if isinstance(one, BaseException)]
    if errors:
        raise Failed(f"{len(errors)} of {len(calls)} calls failed; the first: {line(errors[0])}") from errors[0]
    done = [one for one in ended if not isinstance(one, BaseException)]
    for answer, _ in done:
        if answer.usage.completion_tokens != tokens:
            raise Failed(f"a call asked for {tokens} tokens past any end and got {answer.usage.completion_tokens}")
    return Burst(tuple(answer for answer, _ in done), sum(refused for _, refused in done), seconds)


async def _until_taken(subject: Subject, way: Way, request: dict[str, Any]) -> tuple[Generation, int]:
    """The answer, and how often the call was told to come back: a full queue, or a limit of
    the caller's own, is not a failure; silence on when is."""
    refused = 0
    while True:
        try:
            return await way(subject, **request), refused
        except (QueueFull, IntakeFull, RateLimited, ModelLoading) as error:
            if error.retry_after_seconds is None:
                raise Failed(f"a refusal without a time to come back: {line(error)}") from error
            refused += 1
            await asyncio.sleep(max(0.05, error.retry_after_seconds))


def text_of(answer: Generation) -> str:
    """The beginning of it, on one line."""
    return " ".join(answer.text.split())[:60]
