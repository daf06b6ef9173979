"""The default model through gRPC: fetched once, then cached."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mlx_grpc import testing
from mlx_grpc.v1 import chat_pb2
from tests.helpers.rpc import Request, Sampling, Stop, connected, in_loop

pytestmark = [pytest.mark.default_model, pytest.mark.timeout(420)]
SEEDED = Request(prompt="Once upon a time", sampling=Sampling(temperature=1.0, seed=11), stop=Stop(max_tokens=16))


@pytest.fixture(scope="module")
def server() -> Iterator[testing.LocalServer]:
    with testing.run(engine="process", model=("",)) as server:
        yield server


def test_it_knows_the_capital_of_france(server: testing.LocalServer) -> None:
    """As a prompt and as a chat."""

    @in_loop
    async def run() -> None:
        question = chat_pb2.ContentPart(text="What is the capital of France?")
        chat = chat_pb2.Chat(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[question])])
        greedy = Sampling(temperature=0.0)
        async with connected(server.target) as api:
            prompt = Request(prompt="The capital of France is", sampling=greedy, stop=Stop(max_tokens=8))
            asked = Request(chat=chat, sampling=greedy, stop=Stop(max_tokens=16))
            texts = await asyncio.gather(api.text(prompt), api.text(asked))
        assert all("Paris" in text for text in texts), texts

    run()


def test_a_seeded_request_says_the_same_alone_and_among_fifteen_others(server: testing.LocalServer) -> None:
    """At temperature 1, on the CPU in float32."""

    @in_loop
    async def run() -> None:
        others = [
            Request(
                prompt=f"Number {number} is", sampling=Sampling(temperature=1.0, top_p=0.9), stop=Stop(max_tokens=16)
            )
            for number in range(15)
        ]
        async with connected(server.target) as api:
            alone = await api.text(SEEDED)
            *_, together = await asyncio.gather(*(api.text(request) for request in [*others, SEEDED]))
        assert together == alone

    run()
