"""For the proof of cache kinds: random calls, what each is answered alone, and engines that are killed on time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from mlx_grpc import testing
from mlx_grpc.engine.link.interface import OnLost, OnMessage
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.engine.messages import FromWorker, Step
from mlx_grpc.v1 import generation_pb2
from tests.helpers.models.base import VOCAB_SIZE
from tests.helpers.rpc import Api, Output, Request, Sampling, Stop, connected

LONGEST_PROMPT = 600
LONGEST_ANSWER = 40
STREAMS = 12
"""At once, at most."""
TIE = 1e-3
"""Two tokens of a greedy row that are this close have no order that rounding cannot turn."""
RETRY_SECONDS = 0.05
MOST_TRIES = 600
"""Of a call that is refused while an engine starts."""


@dataclass(frozen=True)
class Asked:
    """A request, and the tokens that it is answered with when it runs alone."""

    request: Request
    tokens: list[int]


def random_request(source: random.Random, seed: int | None) -> Request:
    """Greedy without a seed."""
    ids = [source.randrange(VOCAB_SIZE) for _ in range(source.randint(1, LONGEST_PROMPT))]
    sampling = Sampling(temperature=0.0) if seed is None else Sampling(temperature=0.8, top_p=0.95, seed=seed)
    return Request(
        token_ids=generation_pb2.TokenIds(ids=ids),
        sampling=sampling,
        stop=Stop(max_tokens=source.randint(1, LONGEST_ANSWER), ignore_eos=True),
        output=Output(token_ids=True, logprobs=True, top_logprobs=2),
    )


async def asked_alone(folder: Path, count: int, seed: int) -> list[Asked]:
    """Random requests, each answered by an engine that has one row and keeps nothing."""
    source = random.Random(seed)
    asked: list[Asked] = []
    async with (
        testing.serve(engine="process", model=(f"alone={folder}",), max_batch=1, prefix_cache_bytes=0) as server,
        connected(server.target) as api,
    ):
        while len(asked) < count:
            number = len(asked)
            request = random_request(source, number if number % 2 else None)
            candidate = (await api.answer(request)).candidates[0]
            if request.sampling.HasField("seed") or not any(map(_is_tied, candidate.logprobs)):
                asked.append(Asked(request, list(candidate.token_ids)))
    return asked


def _is_tied(logprob: generation_pb2.TokenLogprob) -> bool:
    best, second = (one.logprob for one in logprob.top)
    return best - second < TIE


@dataclass
class TimedKiller:
    """SIGKILLs engines, each so long after the first token that it gave; `start_link` goes to `testing.serve`."""

    kills: int
    seconds_after_token: float
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.kills

    def start_link(self, on_message: OnMessage, on_lost: OnLost) -> ProcessLink:
        """A link to a child that will be killed, as long as kills are left."""
        seen = False

        def kill() -> None:
            if self.left:
                self.left -= 1
                link.kill()

        def deliver(message: FromWorker) -> None:
            nonlocal seen
            if isinstance(message, Step) and message.tokens and not seen:
                seen = True
                asyncio.get_running_loop().call_later(self.seconds_after_token, kill)
            on_message(message)

        link = ProcessLink(deliver, on_lost)
        return link


async def answers_as_alone(api: Api, asked: Sequence[Asked], enough: Callable[[int], bool], seed: int) -> list[str]:
    """Call at random moments until `enough` says so of the number of calls; returns what differs, in words."""
    source = random.Random(seed)
    problems: list[str] = []
    calls = 0

    async def caller() -> None:
        nonlocal calls
        while not enough(calls):
            calls += 1
            one = source.choice(asked)
            await asyncio.sleep(source.expovariate(10.0))
            tokens = await _tokens(api, one.request)
            if tokens != one.tokens:
                problems.append(f"{len(one.request.token_ids.ids)} tokens of prompt: {tokens} is not {one.tokens}")

    await asyncio.gather(*(caller() for _ in range(STREAMS)))
    return problems


async def _tokens(api: Api, request: Request) -> list[int]:
    """The tokens of a call's answer. It is asked again while an engine starts, as the server says."""
    for _ in range(MOST_TRIES):
        try:
            return list((await api.answer(request)).candidates[0].token_ids)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(RETRY_SECONDS)
    raise AssertionError("the server refuses for ever")
