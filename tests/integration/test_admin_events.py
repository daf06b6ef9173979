"""The live page's event stream: one snapshot a second for all who watch."""

from __future__ import annotations

import asyncio

from mlx_grpc.http.admin import events
from tests.helpers.admin import admin_of, error_of, event_in
from tests.helpers.rpc import Request, Stop, in_loop, read_all, serving, stepped


@in_loop
async def test_a_watcher_gets_the_past_and_then_each_second() -> None:
    """First the curves so far with the last snapshot, then snapshots as they are taken."""
    async with serving() as (server, _), admin_of(server).opened("GET", "/admin/events", None) as stream:
        first = event_in(await stream.until(b"\n\n"))
        second = event_in(await stream.until(b"\n\n"))
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert first[0] == "history"
    assert first[1]["snapshot"]["state"] in ("LOADING", "SERVING")  # it is of the last second
    assert len(first[1]["points"]) >= 1
    assert (second[0], second[1]["state"]) == ("snapshot", "SERVING")
    assert second[1]["unix_seconds"] > first[1]["snapshot"]["unix_seconds"]


@in_loop
async def test_watchers_share_one_snapshot() -> None:
    """Two of them get the same bytes for the same second."""
    async with serving() as (server, _):
        admin = admin_of(server)
        async with admin.opened("GET", "/admin/events", None) as one, admin.opened("GET", "/admin/events", None) as two:
            for stream in (one, two):
                await stream.until(b"\n\n")
            frames = [await stream.until(b"\n\n") for stream in (one, two)]
    assert event_in(frames[0]) == event_in(frames[1])


@in_loop
async def test_frames_show_running_requests() -> None:
    """A call that runs is in the next frame, without its text."""
    async with stepped() as (server, api, gate):
        call = api.stream(Request(prompt="secret", stop=Stop(max_tokens=2)))
        await gate.submit_sent.wait()
        async with admin_of(server).opened("GET", "/admin/events", None) as stream:
            await stream.until(b"\n\n")
            frame = await stream.until(b"\n\n")
        gate.open()
        await read_all(call)
    assert len(event_in(frame)[1]["running"]) == 1
    assert b"secret" not in frame


@in_loop
async def test_too_many_watchers_are_refused(monkeypatch: object) -> None:
    """One more than the limit gets 503, and a place is free again when one leaves."""
    limit, events.MAX_WATCHERS = events.MAX_WATCHERS, 1
    try:
        async with serving() as (server, _):
            admin = admin_of(server)
            async with admin.opened("GET", "/admin/events", None) as first:
                await first.until(b"\n\n")
                refusal = await admin.get("/admin/events")
            while True:  # until the server has seen that the first has left
                async with admin.opened("GET", "/admin/events", None) as again:
                    if await again.head() == 200:
                        break
                await asyncio.sleep(0)
    finally:
        events.MAX_WATCHERS = limit
    assert (refusal.status, error_of(refusal)["reason"]) == (503, "TOO_MANY_WATCHERS")


@in_loop
async def test_the_end_of_the_server_ends_the_stream() -> None:
    """Watchers hold no stop up: the stream ends, and a page would then try again."""
    async with serving() as (server, _), admin_of(server).opened("GET", "/admin/events", None) as stream:
        await stream.until(b"\n\n")
        await server.server.stop()
        rest = await stream.reader.read()
    assert rest.endswith(b"0\r\n\r\n")
