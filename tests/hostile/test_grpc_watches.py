"""Health watches without a token: names as large as a message may be, and as many as a client can open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from mlx_grpc.rpc import watchers
from mlx_grpc.rpc.health import MAX_NAME_CHARACTERS
from tests.helpers.proofs.servers import proof, served, tell
from tests.helpers.rpc import connected, in_loop, refused, serving
from tests.hostile.helpers.grpc import MODEL, attacked, check

pytestmark = pytest.mark.prove

INVALID_ARGUMENT, RESOURCE_EXHAUSTED = "3", "8"


@proof
async def test_watches_of_large_names(tmp_path: Path, full_size: bool) -> None:
    """100 names of nearly 4 MiB: none is kept."""
    calls = 100 if full_size else 20
    with served(tmp_path, model=MODEL) as server:
        found = await attacked(
            server, "watches", calls=calls, connections=2, name_bytes=4_194_000, seconds=20.0 if full_size else 6.0
        )
    tell(f"{calls} watches of 4 MB names: {found}")
    check(found, full_size)
    assert found.calls.keys() <= {INVALID_ARGUMENT, RESOURCE_EXHAUSTED}


@proof
async def test_many_watches_of_one_client_keep_nobody_out(tmp_path: Path, full_size: bool) -> None:
    """1,024 over one connection and over many: another client watches, and hears, all the while."""
    connections = 16 if full_size else 9
    with served(tmp_path, model=MODEL) as server:
        async with connected(server.grpc) as api:
            before = api.health.Watch(health_pb2.HealthCheckRequest())
            assert (await before.read()).status == health_pb2.HealthCheckResponse.SERVING
            attack = asyncio.ensure_future(
                attacked(server, "watches", calls=128 * connections, connections=connections, name_bytes=10, seconds=4)
            )
            while not attack.done():
                late = api.health.Watch(health_pb2.HealthCheckRequest())
                assert (await late.read()).status == health_pb2.HealthCheckResponse.SERVING
                late.cancel()
                await asyncio.sleep(0.1)
            found = attack.result()
            assert not before.done()
            before.cancel()
    tell(f"{128 * connections} watches over {connections} connections: {found}")
    check(found, full_size)
    # Where more than a thousand calls come at once, grpc itself ends some with CANCELLED before they are taken.
    assert found.calls["answered"] <= watchers.MAX_WATCHERS


@in_loop
async def test_a_connection_has_so_many_watches() -> None:
    """One more is refused; another connection has its own."""
    async with serving() as (server, api):
        watches = [
            api.health.Watch(health_pb2.HealthCheckRequest()) for _ in range(watchers.MAX_WATCHERS_PER_CONNECTION)
        ]
        for watch in watches:
            await watch.read()
        refusal = await refused(api.health.Watch(health_pb2.HealthCheckRequest()).read())
        assert refusal.code == "RESOURCE_EXHAUSTED"
        async with connected(server.target) as other:
            late = other.health.Watch(health_pb2.HealthCheckRequest())
            await late.read()
            late.cancel()
        for watch in watches:
            watch.cancel()


@in_loop
async def test_who_loses_its_watch_is_told() -> None:
    """With a status that a client tries again on."""
    async with serving() as (server, api), connected(server.target) as other:
        server.server.health.watchers.total = 2
        first = api.health.Watch(health_pb2.HealthCheckRequest())
        await first.read()  # begun together, either could be the older one
        second = api.health.Watch(health_pb2.HealthCheckRequest())
        await second.read()
        lost = asyncio.ensure_future(first.read())  # a read that begins after a call's end gets nothing any more
        late = other.health.Watch(health_pb2.HealthCheckRequest())
        await late.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await lost
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not second.done()
        for watch in (second, late):
            watch.cancel()


@in_loop
async def test_names_are_bounded_and_escaped() -> None:
    """In what is watched, and in what an error repeats."""
    async with serving() as (_, api):
        ask = health_pb2.HealthCheckRequest
        long = await refused(api.health.Watch(ask(service="n" * (MAX_NAME_CHARACTERS + 1))).read())
        assert (long.code, long.field) == ("INVALID_ARGUMENT", "service")
        unknown = await refused(api.health.Check(ask(service="\x1b[2J\u202e" + "n" * 10_000)))
        assert unknown.code == "NOT_FOUND"
        assert len(unknown.message) < 2 * MAX_NAME_CHARACTERS
        assert unknown.message.isascii()
        assert unknown.message.isprintable()
        huge = await refused(api.health.Check(ask(service="n" * 100_000)))
        assert (huge.code, huge.field) == ("INVALID_ARGUMENT", "request")
