"""One client asks for far more than another: what the other still gets. Counted in rows where that can be.

With `--full` the crowd is a thousand calls, as the limits of one connection allow, and rates hold for a minute.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from mlx_grpc import testing
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.hosting.dispatcher import Dispatcher
from tests.helpers.auth import TokenFolder
from tests.helpers.rpc import Api, Gate, Request, Stop, connected, read_all, read_refusal, serving, stepped, until
from tests.helpers.serve import Serve, script, started

pytestmark = pytest.mark.prove

ROWS = 4
FEW = Stop(max_tokens=2, ignore_eos=True)
PATIENCE_SECONDS = 300.0

Metadata = tuple[tuple[str, str], ...]


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def run(body: Any) -> None:
    """Like `in_loop`, with the time that the full size takes."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await body()

    asyncio.run(bounded())


class Crowd:
    """One client with many calls that wait; another, with one at a time, on a connection of its own."""

    def __init__(self, tokens: TokenFolder, server: testing.LocalServer, greedy: Api, gate: Gate) -> None:
        self.server = server
        self.gate = gate
        self.greedy, self.modest = bearer(tokens.generate), bearer(tokens.other)
        self._api = greedy
        self.calls: list[Any] = []
        self.modest_came: list[int] = []
        """How many rows had entered when each call of the modest client was accepted."""
        self._watch(server.catalog.get("").dispatcher)

    def _watch(self, dispatcher: Dispatcher) -> None:
        submit = dispatcher.submit

        def watched(generation: Generation) -> None:
            submit(generation)
            if generation.request.prompt == list(b"modest"):
                self.modest_came.append(len(self.gate.submitted))

        dispatcher.submit = watched  # type: ignore[method-assign]

    @property
    def rows_between(self) -> list[int]:
        """How many rows of the greedy client entered while each call of the modest one waited."""
        return [row - came for row, came in zip(self.rows_of("modest"), self.modest_came, strict=True)]

    async def gather(self, count: int) -> None:
        """So many calls of the greedy client are accepted."""
        request, answered = Request(prompt="greedy", stop=FEW), self.answered
        self.calls += [self._api.stream(request, metadata=self.greedy) for _ in range(count)]
        await until(self._api, partial(self.has_answered, answered + count))

    @property
    def answered(self) -> int:
        """Calls that were accepted or refused."""
        stats = self.server.server.stats
        return stats.accepted.total() + stats.refused.total()

    def has_answered(self, calls: int) -> bool:
        return self.answered == calls

    async def leave(self) -> None:
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*(call.code() for call in self.calls))

    def rows_of(self, prompt: str) -> list[int]:
        """When its rows entered: their places in the order of all."""
        return [place for place, row in enumerate(self.gate.submitted) if bytes(row.prompt).decode() == prompt]


@asynccontextmanager
async def crowd(tmp_path: Path, count: int, **settings: Any) -> AsyncIterator[tuple[Crowd, Api]]:
    tokens = TokenFolder(tmp_path)
    async with (
        stepped(tokens=tokens.path, max_batch=ROWS, **settings) as (server, api, gate),
        connected(server.target) as other,
    ):
        many = Crowd(tokens, server, api, gate)
        await many.gather(count)
        try:
            yield many, other
        finally:
            await many.leave()


async def steps_until(gate: Gate, api: Api, done: asyncio.Future[Any]) -> None:
    """Let the engine go on, step by step, until it is done."""
    while not done.done():
        gate.step()
        await api.health.Check(health_pb2.HealthCheckRequest())


def test_a_thousand_waiting_calls_do_not_stand_before_anothers_first(tmp_path: Path, full_size: bool) -> None:
    """The other client's call enters with the second row that is free, each time that it asks; and it was told so."""
    count, rounds = (1000, 40) if full_size else (60, 8)

    async def body() -> None:
        async with crowd(tmp_path, count, max_queue=2000) as (many, other):
            for number in range(rounds):
                call = other.stream(Request(prompt="modest", stop=FEW), metadata=many.modest)
                event = await call.read()
                assert number or event.queued.position == 1
                reading = asyncio.ensure_future(read_all(call))
                await steps_until(many.gate, other, reading)
                assert reading.result()[-1].completed.usage.completion_tokens == 2
            assert len(many.rows_between) == rounds
            assert max(many.rows_between) <= 1
            assert many.server.server.stats.refused.total() == 0

    run(body)


def test_two_clients_with_many_calls_have_a_row_in_turn(tmp_path: Path, full_size: bool) -> None:
    """Whoever came first, and however many each has: from the second one's arrival until it has no more, neither has
    had more than one row more than the other."""
    count, others = (900, 300) if full_size else (60, 20)

    async def body() -> None:
        async with crowd(tmp_path, count, max_queue=2000) as (many, other):
            stats = many.server.server.stats
            calls = [other.stream(Request(prompt="modest", stop=FEW), metadata=many.modest) for _ in range(others)]
            await until(other, lambda: stats.accepted.total() == count + others)
            before = len(many.gate.submitted)
            reading = asyncio.gather(*(read_all(call) for call in calls))
            await steps_until(many.gate, other, reading)
            mine = many.rows_of("modest")
            assert len(mine) == others
            for served, place in enumerate(mine, 1):
                assert abs((place - before + 1 - served) - served) <= 1

    run(body)


def test_a_queue_full_of_one_clients_calls_takes_anothers(tmp_path: Path, full_size: bool) -> None:
    """The greedy client is refused, and the other one is served in its turn, again and again."""
    places, rounds = (256, 20) if full_size else (32, 8)

    async def body() -> None:
        async with crowd(tmp_path, places + ROWS + 50, max_queue=places) as (many, other):
            stats = many.server.server.stats
            assert stats.refused == {"QUEUE_FULL": 50}
            for _ in range(rounds):
                answered = many.answered
                call = other.stream(Request(prompt="modest", stop=FEW), metadata=many.modest)
                reading = asyncio.ensure_future(read_all(call))
                await until(other, partial(many.has_answered, answered + 1))
                await steps_until(many.gate, other, reading)
                assert reading.result()[-1].completed.usage.completion_tokens == 2
                await many.gather(places)  # it comes back at once, with more than there is room for
            assert len(many.rows_between) == rounds
            assert max(many.rows_between) <= 1

    run(body)


class Share:
    """What a client that comes as soon as it may was given, between two moments at which its bucket is known: those of
    its first and its last refusal, which say how much it was overdrawn."""

    def __init__(self, tokens_per_minute: int) -> None:
        self._per_second = tokens_per_minute / 60
        self.tokens = 0
        self.known: list[tuple[float, float]] = []
        """The moment, and the tokens by then less those overdrawn."""

    def refused(self, retry_seconds: float) -> None:
        self.known.append((time.monotonic(), self.tokens - retry_seconds * self._per_second))

    @property
    def part(self) -> float:
        """Of what the rate allows; 1 is all of it."""
        (began, tokens_before), (ended, tokens) = self.known[0], self.known[-1]
        return (tokens - tokens_before) / ((ended - began) * self._per_second)


def test_with_rates_each_client_has_its_share(tmp_path: Path, full_size: bool) -> None:
    """Four callers of one token against one of another, each as fast as it may, at the same tokens a minute: each
    client has what the rate says within a tenth. By their own count of tokens."""
    seconds, per_minute = (60.0, 12_000) if full_size else (6.0, 12_000)
    request = Request(prompt="hi", stop=Stop(max_tokens=8, ignore_eos=True))

    async def insist(api: Api, metadata: Metadata, share: Share, end: float) -> None:
        while time.monotonic() < end:
            try:
                usage = (await api.answer(request, metadata=metadata)).usage
                share.tokens += usage.prompt_tokens + usage.completion_tokens
            except grpc.aio.AioRpcError as error:
                refusal = read_refusal(error)
                assert (refusal.reason, refusal.metadata["limit"]) == ("RATE_LIMITED", "client_tokens_per_minute")
                assert refusal.retry_seconds is not None
                share.refused(refusal.retry_seconds)
                await asyncio.sleep(refusal.retry_seconds)

    async def body() -> None:
        tokens = TokenFolder(tmp_path)
        async with (
            serving(tokens=tokens.path, client_tokens_per_minute=per_minute) as (server, api),
            connected(server.target) as other,
        ):
            many, few, end = Share(per_minute), Share(per_minute), time.monotonic() + seconds
            greedy = [insist(api, bearer(tokens.generate), many, end) for _ in range(4)]
            await asyncio.gather(*greedy, insist(other, bearer(tokens.other), few, end))
        sys.stdout.write(f"greedy {many.part:.3f} of its rate, modest {few.part:.3f}\n")
        assert many.part == pytest.approx(1.0, abs=0.1)
        assert few.part == pytest.approx(1.0, abs=0.1)

    run(body)


async def longest_gap(moments: AsyncIterator[None]) -> float:
    """Seconds between two of them, at most."""
    longest, last = 0.0, time.monotonic()
    async for _ in moments:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def resident_megabytes(pid: int) -> float:
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True).stdout) / 1024


def test_a_crowd_leaves_others_their_pace(tmp_path: Path, full_size: bool) -> None:
    """While the greedy client opens its calls, and while they wait, another one's health checks are answered and its
    stream goes on; the server's memory stays near what it was, and a second crowd leaves nothing behind."""
    count, gap_seconds, above_megabytes = (1000, 0.3, 150.0) if full_size else (100, 3.0, 150.0)
    tokens = TokenFolder(tmp_path)
    greedy, modest = bearer(tokens.generate), bearer(tokens.other)
    slow = Request(prompt="slow", stop=Stop(max_tokens=200, ignore_eos=True))

    async def checks(api: Api, until_done: asyncio.Future[Any]) -> AsyncIterator[None]:
        while not until_done.done():
            await api.health.Check(health_pb2.HealthCheckRequest())
            yield
            await asyncio.sleep(0.01)

    async def deltas(call: Any) -> AsyncIterator[None]:
        while await call.read() is not grpc.aio.EOF:
            yield

    async def crowded(api: Api, other: Api, pid: int) -> tuple[float, float, float]:
        """The longest gap, and the memory while they wait and when they have left."""
        call = other.stream(slow, metadata=modest)
        await call.read()
        stream = asyncio.ensure_future(longest_gap(deltas(call)))
        health = asyncio.ensure_future(longest_gap(checks(other, stream)))
        calls = []
        for _ in range(count):
            calls.append(api.stream(slow, metadata=greedy))
            await asyncio.sleep(0.001)
        most = await asyncio.to_thread(resident_megabytes, pid)
        gap = max(await stream, await health)
        for one in calls:
            one.cancel()
        await asyncio.gather(*(one.code() for one in calls))
        await other.answer(Request(prompt="after", stop=FEW), metadata=modest)
        return gap, most, resident_megabytes(pid)

    async def body(serve: Serve) -> None:
        async with connected(target := serve.target) as api, connected(target) as other:
            await other.answer(Request(prompt="warm", stop=FEW), metadata=modest)
            pid = serve.process.pid
            idle = resident_megabytes(pid)
            # What the first crowd leaves is the allocator's, for the next one.
            (first_gap, first_most, settled), (gap, most, after) = [await crowded(api, other, pid) for _ in range(2)]
            sys.stdout.write(
                f"longest gaps {first_gap:.3f} and {gap:.3f} s, memory {idle:.0f} MB, with crowds {first_most:.0f} and "
                f"{most:.0f}, afterwards {settled:.0f} and {after:.0f}\n"
            )
            assert max(first_gap, gap) <= gap_seconds
            assert max(first_most, most) <= idle + above_megabytes
            assert after <= settled * 1.1

    with started(
        "--model", script(step_seconds=0.01), "--max-batch", str(ROWS), "--max-queue", "2000", "--tokens",
        str(tokens.path), "--log-level", "warning",
    ) as serve:  # fmt: skip
        run(lambda: body(serve))
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        assert sum(map(len, serve.errors)) <= 100_000
