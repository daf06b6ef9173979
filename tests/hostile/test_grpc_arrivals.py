"""Messages that do not end, or do not come: no token is needed for any of these calls."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mlx_grpc.bounds.intake import LEAST_TOTAL_BYTES
from mlx_grpc.rpc import arrivals
from tests.helpers.proofs.servers import proof, served, tell
from tests.helpers.rpc import Request, in_loop, refused, serving
from tests.hostile.helpers.grpc import (
    ALIVE_AT_ONCE,
    CHECK,
    GENERATE,
    KEPT_BYTES_A_CALL,
    MODEL,
    RawConnection,
    attacked,
    check,
    framed,
)

pytestmark = pytest.mark.prove

MESSAGE_BYTES = 4 * 1024 * 1024
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED = "3", "8"


@pytest.mark.parametrize(("calls", "connections"), [(60, 1), (1000, 1), (1000, 20)])
@proof
async def test_unfinished_messages(calls: int, connections: int, tmp_path: Path, full_size: bool) -> None:
    """Each lacks its last byte. What the server keeps of them is bounded, whatever they are, and is back when they
    have gone; others do not notice."""
    with served(tmp_path, model=MODEL) as server:
        control = await attacked(server, "nothing", seconds=2.0)
        found = await attacked(
            server, "unfinished", calls=calls if full_size else calls // 4, connections=connections,
            message_bytes=MESSAGE_BYTES, seconds=8.0 if full_size else 2.0,
        )  # fmt: skip
    tell(f"{calls} messages of 4 MiB over {connections} connections: {found} | without: {control}")
    check(found, full_size)
    waiting = found.calls.get("waiting", 0)
    assert found.calls.keys() <= {"waiting", RESOURCE_EXHAUSTED, "reset 0"}
    assert waiting <= calls


@proof
async def test_another_attack_leaves_no_more(tmp_path: Path, full_size: bool) -> None:
    """What the interpreter keeps of many calls at once is used again: memory does not grow from attack to attack."""
    calls = 1000 if full_size else 250
    with served(tmp_path, model=MODEL) as server:
        found = [
            await attacked(
                server, "unfinished", calls=calls, connections=20, message_bytes=MESSAGE_BYTES,
                seconds=5.0 if full_size else 2.0,
            )
            for _ in range(3)
        ]  # fmt: skip
    after = [one.after.memory_bytes for one in found]
    tell(f"{calls} messages of 4 MiB, three times: {[round(one / 1e6) for one in after]} MB afterwards")
    assert after[2] <= 1.1 * found[0].idle.memory_bytes + KEPT_BYTES_A_CALL * ALIVE_AT_ONCE


@pytest.mark.parametrize("path", [CHECK, GENERATE, REFLECT])
@in_loop
async def test_a_call_that_ends_without_a_message_is_told_so(path: str) -> None:
    """A stream of questions without one is answered, with nothing."""
    async with serving() as (server, _):
        found = await _ended(server.target, path, end=True)
    assert found == ("0" if path == REFLECT else INVALID_ARGUMENT)


@pytest.mark.parametrize("path", [CHECK, GENERATE, REFLECT])
@pytest.mark.parametrize("data", [b"", b"\0\0", framed(b"\x0a", 1000)], ids=["nothing", "half-a-head", "half"])
@in_loop
async def test_a_call_whose_message_never_comes_is_ended(
    path: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that the slowest message may take."""
    monkeypatch.setattr(arrivals, "SLOW_SECONDS", 0.5)
    async with serving() as (server, _):
        assert await _ended(server.target, path, data) == INVALID_ARGUMENT
        while server.server.intake.held_bytes:  # noqa: ASYNC110  (the read ends just after the call)
            await asyncio.sleep(0.01)


@in_loop
async def test_a_slow_message_is_served() -> None:
    """One that comes in pieces over seconds, while nobody needs its room."""
    request = framed(Request(prompt="ping", stop={"max_tokens": 1}).SerializeToString())
    async with serving() as (server, _):
        connection = RawConnection(server.target)
        try:
            stream = connection.call(GENERATE, request[:7])
            await connection.run_async(3 * arrivals.GRACE_SECONDS)
            assert server.server.intake.held_bytes == MESSAGE_BYTES
            connection.go_on(stream, request[7:])
            await connection.run_async(20, until_ended=True)
            assert (connection.ended, server.server.intake.held_bytes) == ({stream: "0"}, 0)
        finally:
            connection.close()


@in_loop
async def test_the_oldest_slow_message_of_the_greediest_makes_room() -> None:
    """A connection that has one of its own is left alone, and whoever is cut off hears when to come again."""
    async with serving() as (server, _):
        connections = [RawConnection(server.target) for _ in range(4)]
        places = LEAST_TOTAL_BYTES // MESSAGE_BYTES
        try:
            modest, *greedy, late = connections
            first = modest.call(GENERATE, b"\0\0")
            await modest.run_async(2 * arrivals.GRACE_SECONDS)
            for one in greedy:
                for _ in range((places - 1) // 2 + 1):
                    one.call(GENERATE, b"\0\0")
                    await one.run_async(2 * arrivals.GRACE_SECONDS)
            late.call(GENERATE, b"\0\0")
            await late.run_async(3 * arrivals.GRACE_SECONDS)
            for one in connections:
                await one.run_async(0.05)
            ended = [sorted(one.ended.values()) for one in connections]
            assert first not in modest.ended
            assert not late.ended
            assert ended[1] + ended[2] == [RESOURCE_EXHAUSTED] * len(ended[1] + ended[2])
            assert server.server.intake.held_bytes <= LEAST_TOTAL_BYTES
        finally:
            for one in connections:
                one.close()


@in_loop
async def test_what_is_not_answered_counts() -> None:
    """Large requests hold their bytes until their answer; past the bound the next is refused with a time to retry."""
    async with serving(max_request_bytes=MESSAGE_BYTES) as (server, api):
        intake = server.server.intake
        holding = intake.open("somebody", lambda: None)
        holding.grow(intake.connection_bytes)
        holding.arrived()
        while left_bytes := intake.total_bytes - intake.held_bytes:
            other = intake.open(f"another, with {left_bytes} bytes left", lambda: None)
            other.grow(min(left_bytes, intake.connection_bytes))
            other.arrived()
        refusal = await refused(api.answer("ping"))
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "INTAKE_FULL")
        assert refusal.retry_seconds
        holding.close()
        await api.answer("ping")


async def _ended(target: str, path: str, data: bytes = b"", end: bool = False) -> str:
    """The status of one call."""
    connection = RawConnection(target)
    try:
        stream = connection.call(path, data, end=end)
        await connection.run_async(20, until_ended=True)
        return connection.ended[stream]
    finally:
        connection.close()
