"""Which tests there are and in which order, and what runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mlx_grpc.check import bridge, generating, life, overload
from mlx_grpc.check.outcome import Failed, Outcome, Report, Skipped, State
from mlx_grpc.check.subject import Settings, Subject, line
from mlx_grpc.client import AsyncClient
from mlx_grpc.errors import MlxGrpcError


class Check(NamedTuple):
    """`run` returns what it saw, or raises Failed, Skipped, or what a call raised."""

    name: str
    run: Callable[[Subject], Awaitable[str]]


# Health comes first, since without it nothing else can be; the last two look back at all that went before.
TESTS = (
    Check("Server health", life.health),
    Check("Single request baseline", generating.single),
    Check("3 requests at once", generating.three_at_once),
    Check("8 streams at once", generating.streams_at_once),
    Check("32 requests at once", generating.many_at_once),
    Check("Streaming and whole, mixed", generating.mixed),
    Check("Long prompts at once", generating.long_prompts),
    Check("A model loaded while others generate", life.loading),
    Check("Deadlines under overload", overload.deadlines),
    Check("HTTP: list of models", bridge.models),
    Check("HTTP: a chat completion", bridge.whole),
    Check("HTTP: a chat completion, streamed", bridge.streamed),
    Check("HTTP: a second question before the first ends", bridge.together),
    Check("Server stability", life.stability),
    Check("Error analysis", life.errors),
)

OnStart = Callable[[int, Check], None]
OnEnd = Callable[[Outcome], None]


async def run(settings: Settings, on_start: OnStart, on_end: OnEnd, tests: tuple[Check, ...] = TESTS) -> Report:
    """Runs the tests one after another and tells of each; the rest is skipped when the first of them fails.

    Raises ValueError for settings that make no client.
    """
    began_seconds = time.monotonic()
    outcomes: list[Outcome] = []
    # A call that is refused must say so to the test, and not be tried again out of its sight.
    async with AsyncClient(settings.grpc, tls=settings.tls, token=settings.token, retry=False) as client:
        subject = Subject(settings, client)
        for number, test in enumerate(tests, 1):
            on_start(number, test)
            if outcomes and outcomes[0].state is State.FAILED:
                outcome = Outcome(test.name, State.SKIPPED, 0.0, f"{outcomes[0].name} failed")
            else:
                outcome = await run_one(test, subject)
            outcomes.append(outcome)
            on_end(outcome)
    speeds = tuple(subject.speeds[count] for count in sorted(subject.speeds))
    return Report(settings.grpc, time.monotonic() - began_seconds, tuple(outcomes), speeds)


async def run_one(test: Check, subject: Subject) -> Outcome:
    """Whatever a test raises is its outcome, and so is one that does not end."""
    began_seconds = time.monotonic()
    limit_seconds = subject.settings.timeout_seconds
    state = State.FAILED
    try:
        async with asyncio.timeout(limit_seconds) as limit:
            detail, state = await test.run(subject), State.PASSED
    except Skipped as reason:
        detail, state = str(reason), State.SKIPPED
    except TimeoutError as error:
        detail = f"not done within {limit_seconds:g} s (--timeout-seconds)" if limit.expired() else line(error)
    except (Failed, MlxGrpcError) as error:
        detail = line(error)
    except Exception as error:  # an answer of a shape that no test thought of
        detail = f"the answer could not be read: {line(error)}"
    return Outcome(test.name, state, time.monotonic() - began_seconds, detail)
