"""Seeds batch: a seeded request's text is the same alone and in company."""

from __future__ import annotations

import asyncio

from mlx_grpc.engine.scripted.script import Script
from tests.helpers.rpc import Request, Sampling, Stop, in_loop, serving, stepped


def words(prompt: str, seed: int | None = None) -> Request:
    return Request(prompt=prompt, sampling=Sampling(seed=seed, temperature=1.0), stop=Stop(max_tokens=24))


@in_loop
async def test_a_seeded_request_says_the_same_alone_and_among_fifteen_others() -> None:
    """All sixteen are in one batch: the gate opens when the engine has got them all."""
    async with serving() as (_, api):
        alone = await api.text(words("hello", 7))
    async with stepped() as (_, api, gate):
        calls = [asyncio.ensure_future(api.text(words(f"other {number}", number))) for number in range(15)]
        calls.append(asyncio.ensure_future(api.text(words("hello", 7))))
        while len(gate.submitted) < 16:
            gate.submit_sent.clear()
            await gate.submit_sent.wait()
        gate.open()
        assert (await asyncio.gather(*calls))[-1] == alone


@in_loop
async def test_a_drawn_seed_can_be_sent_back() -> None:
    """The answer names the seed that was drawn; with it, the text comes again. Without, another comes."""
    async with serving() as (_, api):
        first = await api.answer(words("hello"))
        again = await api.text(words("hello", first.seed))
        other = await api.answer(words("hello"))
    assert again == first.candidates[0].text
    assert other.seed != first.seed
    assert other.candidates[0].text != again


@in_loop
async def test_every_bit_of_a_seed_counts() -> None:
    """64 bits reach the sampler and come back."""
    async with serving() as (_, api):
        answers = [await api.answer(words("hello", seed)) for seed in (2**64 - 1, 2**63 - 1, 0)]
    assert [answer.seed for answer in answers] == [2**64 - 1, 2**63 - 1, 0]
    assert len({answer.candidates[0].text for answer in answers}) == 3


@in_loop
async def test_greedy_needs_no_seed() -> None:
    """Temperature 0 says the same whatever seed is drawn."""
    request = Request(prompt="hello", stop=Stop(max_tokens=24))
    async with serving(Script()) as (_, api):
        assert await api.text(request) == await api.text(request)
