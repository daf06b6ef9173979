"""SIGTERM while many streams run: they finish or are ended cleanly, and the process goes, with its child."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from tests.helpers.proofs.servers import Served, comes_true, crowd, outcome, proof, served, tell
from tests.helpers.rpc import Api, Refusal, connected, read_all, read_until, refused

pytestmark = pytest.mark.prove

STREAMS = 32
EXIT_SECONDS = 3.0
"""After SIGTERM with --drain-seconds 1: what the issue promises."""
QUICK, ENDLESS = 'script:{"step_seconds": 0.01}', 'script:{"step_seconds": 0.02}'


@asynccontextmanager
async def _running(server: Served, max_tokens: int) -> AsyncIterator[tuple[Api, list[Any], int]]:
    """Stubs, streams that have begun, and the engine's process."""
    async with connected(server.grpc) as api:
        calls = [api.stream(request) for request in crowd([f"hello {n}" for n in range(STREAMS)], max_tokens)]
        for call in calls:
            await read_until(call, "delta")
        engine_pid = server.engine_pid
        assert engine_pid
        yield api, calls, engine_pid


async def _exit(server: Served) -> int:
    return await asyncio.to_thread(server.process.wait, 60)


def _is_gone(pid: int) -> bool:
    """A child of a server that has ended is nobody's to reap but init's: dead is enough."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


@proof
async def test_sigterm_lets_32_streams_finish(tmp_path: Path) -> None:
    """All complete; a call that comes meanwhile is refused as DRAINING; exit code 0, no orphan."""
    with served(tmp_path, model=QUICK) as server:
        async with _running(server, 80) as (api, calls, engine_pid):
            server.terminate()
            watch = api.health.Watch(health_pb2.HealthCheckRequest())
            while (await watch.read()).status != health_pb2.HealthCheckResponse.NOT_SERVING:
                pass
            late = await refused(api.answer("too late"))
            assert (late.code, late.reason) == ("UNAVAILABLE", "DRAINING")
            rests = await asyncio.gather(*map(read_all, calls))
            assert [rest[-1].WhichOneof("event") for rest in rests] == ["completed"] * STREAMS
        assert await _exit(server) == 0
        assert _is_gone(engine_pid)
        tell(f"SIGTERM: {STREAMS} of {STREAMS} finished, exit 0")


@proof
async def test_the_end_of_a_drain_ends_the_rest_cleanly(tmp_path: Path) -> None:
    """--drain-seconds 1: streams that go on for minutes end as UNAVAILABLE DRAINING, and within 3 s nothing is left."""
    with served(tmp_path, "--drain-seconds", "1", model=ENDLESS) as server:
        async with _running(server, 3000) as (_, calls, engine_pid):
            server.terminate()
            began_seconds = time.monotonic()
            outcomes = await asyncio.gather(*map(outcome, calls))
            assert {one.reason if isinstance(one, Refusal) else one for one in outcomes} == {"DRAINING"}
            code = await _exit(server)
            took_seconds = time.monotonic() - began_seconds
        assert code == 1
        assert took_seconds < EXIT_SECONDS
        assert _is_gone(engine_pid)
        tell(f"--drain-seconds 1: {STREAMS} streams ended as DRAINING, exit {code} after {took_seconds:.1f} s")


@proof
async def test_an_open_watch_delays_nothing(tmp_path: Path) -> None:
    """Watchers that never let go are told NOT_SERVING and ended."""
    with served(tmp_path) as server:
        async with connected(server.grpc) as api:
            watches = [api.health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "nobody") * 8]
            assert {(await watch.read()).status for watch in watches[::2]} == {health_pb2.HealthCheckResponse.SERVING}
            server.terminate()
            began_seconds = time.monotonic()
            assert await _exit(server) == 0
            assert time.monotonic() - began_seconds < EXIT_SECONDS
            assert (await watches[0].read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@proof
async def test_a_second_signal_ends_it_now(second: signal.Signals, tmp_path: Path) -> None:
    """In a drain of a minute: the streams end, exit code 1, no orphan."""
    with served(tmp_path, "--drain-seconds", "60", model=ENDLESS) as server:
        async with _running(server, 3000) as (api, calls, engine_pid):
            server.terminate()
            while (await refused(api.answer("x"))).reason != "DRAINING":
                pass
            began_seconds = time.monotonic()
            server.process.send_signal(second)
            outcomes = await asyncio.gather(*map(outcome, calls))
            assert await _exit(server) == 1
            assert time.monotonic() - began_seconds < EXIT_SECONDS
        assert {one.code for one in outcomes if isinstance(one, Refusal)} <= {"UNAVAILABLE", "CANCELLED"}
        assert _is_gone(engine_pid)
        tell(f"second signal: {Counter(str(getattr(one, 'code', one)) for one in outcomes)}")


@proof
async def test_a_killed_server_leaves_no_engine(tmp_path: Path) -> None:
    """SIGKILL of the server: its child sees its pipe close and ends by itself."""
    with served(tmp_path, model=ENDLESS) as server:
        async with _running(server, 3000) as (_, calls, engine_pid):
            server.process.kill()
            outcomes = await asyncio.gather(*map(outcome, calls))
            assert {one.code for one in outcomes if isinstance(one, Refusal)} == {"UNAVAILABLE"}
            await comes_true(lambda: _is_gone(engine_pid), 20)
