"""A client that does not read gets a bounded buffer, merged deltas, and in the end an error; nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import msgspec
import pytest

from mlx_grpc import testing
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.service.generation.call import MAX_UNREAD_TOKENS
from tests.helpers.proofs.servers import crowd, empty, outcome, proof, tell
from tests.helpers.rpc import Api, Output, Refusal, Request, StreamEvent, connected, read_until, until

pytestmark = pytest.mark.prove

LONG = Script(context_length=100_000, kv_bytes_per_token=1)
UNHURRIED = msgspec.structs.replace(LONG, step_seconds=0.002)
"""So that time is over before the buffer is full."""
TOKENS = 30_000
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
"""gRPC widens the window of a fast connection to megabytes; 64 KiB fill sooner."""


@asynccontextmanager
async def _narrow(target: str) -> AsyncIterator[Api]:
    async with grpc.aio.insecure_channel(target, options=SMALL_WINDOW) as channel:
        yield Api(channel)


def _long(tokens: int) -> Request:
    """Much to read for each token."""
    (request,) = crowd(["tell me all"], tokens)
    request.output.CopyFrom(Output(logprobs=True, top_logprobs=20, token_ids=True))
    return request


async def _events_and_end(call: object) -> tuple[list[StreamEvent], Refusal | str]:
    events: list[StreamEvent] = []

    class Noted:
        async def read(self) -> object:
            event = await call.read()  # type: ignore[attr-defined]
            if event is not grpc.aio.EOF:
                events.append(event)
            return event

    return events, await outcome(Noted())


@proof
async def test_a_reader_that_stops_is_ended_and_the_batch_never_waits() -> None:
    """Others finish as if it were not there; after slow_reader_seconds its row is free, and it ends as SLOW_READER."""
    async with (
        testing.serve(UNHURRIED, engine="process", slow_reader_seconds=1.0) as server,
        connected(server.target) as api,
        _narrow(server.target) as narrow,
    ):
        slow = narrow.stream(_long(TOKENS))
        await read_until(slow, "delta")
        others = await asyncio.gather(*(outcome(api.stream(request)) for request in crowd(["a", "b", "c"], 400)))
        assert all(isinstance(other, str) for other in others)
        await empty(server, api)
        assert server.server.stats.failed == {"SLOW_READER": 1}
        events, end = await _events_and_end(slow)
        assert isinstance(end, Refusal)
        assert (end.code, end.reason) == ("RESOURCE_EXHAUSTED", "SLOW_READER")
        tell(f"stopped reader: 3 others finished, then SLOW_READER; {len(events)} messages were still to be read")


@proof
async def test_a_reader_that_is_too_far_behind_is_ended() -> None:
    """However patient the server is: what it keeps for a reader is bounded, and the row is free when it is full."""
    async with (
        testing.serve(LONG, engine="process", slow_reader_seconds=60.0) as server,
        connected(server.target) as api,
        _narrow(server.target) as narrow,
    ):
        slow = narrow.stream(_long(TOKENS))
        await read_until(slow, "delta")
        await until(api, lambda: not server.active_rows)
        events, end = await _events_and_end(slow)
        assert isinstance(end, Refusal)
        assert end.reason == "SLOW_READER"
        kept = max(len(event.delta.token_ids) for event in events)
        assert MAX_UNREAD_TOKENS <= kept <= MAX_UNREAD_TOKENS + 1
        tell(f"reader behind: the last delta had {kept} tokens, then SLOW_READER")


@proof
async def test_a_reader_that_comes_back_in_time_has_missed_nothing() -> None:
    """What it left unread comes in few large deltas, and the text is what a quick reader gets."""
    tokens = 6000
    async with testing.serve(LONG, engine="process") as server, _narrow(server.target) as narrow:
        async with connected(server.target) as api:
            quick = await outcome(api.stream(_long(tokens)))
            slow = narrow.stream(_long(tokens))
            said = await read_until(slow, "delta")
            await until(api, lambda: not server.active_rows)
        events, text = await _events_and_end(slow)
        assert "".join(event.delta.text for event in said) + str(text) == quick
        assert len(events) < tokens / 2
        tell(f"reader behind, then back: {tokens} tokens in {len(said + events)} messages, the same text")
