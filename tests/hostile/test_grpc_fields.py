"""Messages that are small and hold millions of things."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.v1 import chat_pb2, generation_pb2
from tests.helpers.proofs.requests import RequestMaker
from tests.helpers.proofs.servers import proof, served, tell
from tests.helpers.rpc import Request, connected, in_loop, read_refusal, refused, serving
from tests.hostile.helpers.grpc import GENERATE, HOLDING_MUCH, MODEL, attacked, check, inside

pytestmark = pytest.mark.prove

LAG_SECONDS, LAG_ON_A_LOADED_MACHINE_SECONDS = 0.15, 1.0
"""For what is 0.05 s of the server alone: the client is in the same loop here."""


class Lag:
    """The longest time that the event loop was held up."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._task = asyncio.ensure_future(self._measure())

    async def _measure(self) -> None:
        while True:
            began_seconds = time.perf_counter()
            await asyncio.sleep(0)
            self.seconds = max(self.seconds, time.perf_counter() - began_seconds)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.mark.parametrize("name", HOLDING_MUCH)
@proof
async def test_nothing_that_a_message_holds_stops_the_loop(name: str, full_size: bool) -> None:
    """Each is refused, or answered, and the server's loop has gone on meanwhile."""
    method, data = HOLDING_MUCH[name]
    async with serving(Script(context_length=8192)) as (_, api):
        call: Any = api.channel.unary_unary(method)
        await refused(call(b"\x08"))
        lag = Lag()
        try:
            await call(data)
            ended = "OK"
        except grpc.aio.AioRpcError as error:
            refusal = read_refusal(error)
            ended = f"{refusal.code} {refusal.reason} {refusal.field}"
        finally:
            await lag.close()
    tell(f"{name}: {ended}, loop held for {lag.seconds * 1e3:.0f} ms")
    assert ended.split()[0] in {"INVALID_ARGUMENT", "UNIMPLEMENTED"} or name.startswith("detokenize")
    assert lag.seconds <= (LAG_SECONDS if full_size else LAG_ON_A_LOADED_MACHINE_SECONDS)


@proof
async def test_eight_at_once(tmp_path: Path, full_size: bool) -> None:
    """Eight messages of 4 MiB of empty sub-messages, again and again, from one client."""
    with served(tmp_path, model=MODEL) as server:
        found = await attacked(server, "fields", calls=8, seconds=5.0 if full_size else 2.0, what="messages")
    tell(f"4 MiB of empty messages, eight at a time: {found}")
    check(found, full_size)
    assert found.calls.keys() <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert found.calls["INVALID_ARGUMENT"]


@in_loop
async def test_the_largest_requests_are_still_taken() -> None:
    """4,096 messages of six parts each, a full logit_bias, a whole context of token ids that are not packed."""
    part = chat_pb2.ContentPart(text="w")
    one = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part] * 6)
    stop = generation_pb2.Stop(max_tokens=1)
    async with serving(Script(context_length=500_000, kv_bytes_per_token=1)) as (_, api):
        await api.answer(Request(chat=chat_pb2.Chat(messages=[one] * 4096), stop=stop))
        bias = generation_pb2.Sampling(logit_bias=dict.fromkeys(range(512), 1.0))
        await api.answer(Request(prompt="ping", sampling=bias, stop=stop))
        ids = inside(5, b"\x08\x21" * 400_000)
        call: Any = api.channel.unary_unary(GENERATE)
        assert await call(ids + stop_field(stop))


def stop_field(stop: Message) -> bytes:
    return inside(11, stop.SerializeToString())


@in_loop
async def test_too_many_token_ids_are_refused_before_they_are_copied() -> None:
    """As a prompt of that length is."""
    async with serving(Script(context_length=8192)) as (_, api):
        refusal = await refused(api.answer(Request(token_ids=generation_pb2.TokenIds(ids=[1] * 1_000_000))))
        assert (refusal.reason, refusal.metadata["prompt_tokens"]) == ("PROMPT_TOO_LONG", "1000000")


@proof
async def test_mutated_messages(tmp_path: Path, full_size: bool) -> None:
    """10,000 of them: each gets a status that names a reason, the engine lives on, others keep their pace."""
    count = 10_000 if full_size else 300
    maker = RequestMaker(14)
    with served(tmp_path, model=MODEL) as server:
        engine = server.engine_pid
        async with connected(server.grpc) as api:
            call: Any = api.channel.unary_unary(GENERATE)

            async def send(data: bytes) -> str:
                try:
                    await call(data, timeout=20)
                except grpc.aio.AioRpcError as error:
                    refusal = read_refusal(error)
                    return f"{refusal.code} {refusal.reason}"
                return "OK"

            ended: set[str] = set()
            for _ in range(0, count, 20):
                made = [
                    maker.mutated(maker.tame(maker.message(generation_pb2.GenerateRequest)).SerializeToString())
                    for _ in range(20)
                ]
                ended |= set(await asyncio.gather(*map(send, made)))
        assert server.engine_pid == engine
    tell(f"{count} mutated messages: {sorted(ended)}")
    assert not any("INTERNAL" in one or "UNKNOWN" in one for one in ended)
