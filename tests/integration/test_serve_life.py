"""`serve` as a process: the ready file, signals with streams running, and no engine left behind."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.helpers.rpc import Api, Request, Stop, connected, in_loop, read_all, read_until, refused
from tests.helpers.serve import Serve, engines_of, lives, script, started

STREAMS = 4
SLOW = script(step_seconds=0.02)
ENDLESS = Request(prompt="on and on", stop=Stop(max_tokens=4000, ignore_eos=True))
BRIEF_TOKENS = 100  # two seconds: a signal and a refused call come well before their end
BRIEF = Request(prompt="brief", stop=Stop(max_tokens=BRIEF_TOKENS, ignore_eos=True))


async def streaming(
    serve: Serve, request: Request, then: Callable[[Api, list[grpc.aio.Call]], Awaitable[None]]
) -> None:
    """Some streams that have begun, and what happens to them."""
    async with connected(serve.target) as api:
        calls = [api.stream(request) for _ in range(STREAMS)]
        for call in calls:
            await read_until(call, "delta")
        await then(api, calls)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish(number: int) -> None:
    """They get all their tokens, a new call is refused as DRAINING, and the exit code is 0."""
    with started("--model", SLOW) as serve:

        @in_loop
        async def run() -> None:
            async def then(api: Api, calls: list[grpc.aio.Call]) -> None:
                watch = api.health.Watch(health_pb2.HealthCheckRequest())
                await watch.read()
                serve.signal(number)
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                late = await refused(api.answer("late"))
                ends = await asyncio.gather(*(read_all(call) for call in calls))
                assert [events[-1].completed.usage.completion_tokens for events in ends] == [BRIEF_TOKENS] * STREAMS
                assert (late.code, late.reason) == ("UNAVAILABLE", "DRAINING")

            await streaming(serve, BRIEF, then)

        run()
        engines = engines_of(serve.process.pid)
        assert serve.ended() == 0
        assert not [pid for pid in engines if lives(pid)]
        assert not [line for line in serve.errors if "Traceback" in line or " E0000" in line]


def test_what_the_drain_does_not_finish_ends_as_draining() -> None:
    """After drain_seconds; the exit code says that not all was served, and no engine is left."""
    with started("--model", SLOW, "--drain-seconds", "0.5") as serve:
        engines: list[int] = []

        @in_loop
        async def run() -> None:
            async def then(_: Api, calls: list[grpc.aio.Call]) -> None:
                engines.extend(engines_of(serve.process.pid))
                serve.signal(signal.SIGTERM)
                refusals = [await refused(read_all(call)) for call in calls]
                assert {(one.code, one.reason) for one in refusals} == {("UNAVAILABLE", "DRAINING")}
                assert all("x-generation-id" in one.trailing for one in refusals)

            await streaming(serve, ENDLESS, then)

        run()
        assert serve.ended() == 1
        assert len(engines) == 1
        assert not lives(engines[0])


def test_a_second_signal_ends_it_now() -> None:
    """Without waiting for the drain."""
    with started("--model", SLOW, "--drain-seconds", "600") as serve:
        engines: list[int] = []

        @in_loop
        async def run() -> None:
            async def then(api: Api, calls: list[grpc.aio.Call]) -> None:
                engines.extend(engines_of(serve.process.pid))
                watch = api.health.Watch(health_pb2.HealthCheckRequest())
                await watch.read()
                serve.signal(signal.SIGTERM)
                await watch.read()  # the first has been seen
                serve.signal(signal.SIGTERM)
                for call in calls:
                    assert (await refused(read_all(call))).code in {"UNAVAILABLE", "CANCELLED"}

            await streaming(serve, ENDLESS, then)

        run()
        assert serve.ended() == 1
        assert not lives(engines[0])


def test_a_signal_while_the_model_loads_ends_it() -> None:
    """Nothing waits for a model that nobody wants any more."""
    with started("--model", script(load_seconds=600), "--log-level", "debug") as serve:
        while not engines_of(serve.process.pid):
            assert serve.process.poll() is None, serve.errors
        (engine,) = engines_of(serve.process.pid)
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        assert not lives(engine)


def test_the_ready_file_is_there_while_it_serves(tmp_path: Path) -> None:
    """Written whole, with the ports that were picked, and taken away at the end."""
    ready = tmp_path / "ready.json"
    with started("--model", script(), "--ready-file", str(ready)) as serve:
        target = serve.target
        facts = json.loads(ready.read_text())
        assert (facts["grpc"], facts["pid"]) == (target, serve.process.pid)
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        assert not list(tmp_path.iterdir())


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    """Beside the port; gone at the end."""
    socket = tmp_path / "s"
    with started("--model", script(), "--grpc-socket", str(socket)) as serve:
        serve.serving_line()

        @in_loop
        async def run() -> None:
            async with connected(f"unix:{socket}") as api:
                assert await api.text(Request(prompt="hi", stop=Stop(max_tokens=2)))

        run()
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        assert not socket.exists()


def test_a_server_prints_its_own_lines_alone() -> None:
    """One line on stdout; on stderr the log, and nothing of the libraries below."""
    with started("--model", script()) as serve:
        assert serve.serving_line().startswith("mlx-grpc ")
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        assert serve.process.stdout is not None
        assert serve.process.stdout.read() == ""
        levels = {line.split()[2] for line in serve.errors}
        assert levels <= {"INFO"}, serve.errors


def test_a_killed_server_leaves_no_engine() -> None:
    """The engine ends when its inbox closes, which even kill -9 of the server does."""
    with started("--model", script()) as serve:
        serve.serving_line()
        (engine,) = engines_of(serve.process.pid)
        serve.signal(signal.SIGKILL)
        serve.ended()
        while lives(engine):
            pass
