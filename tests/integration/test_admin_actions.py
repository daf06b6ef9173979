"""What an operator can do through the admin port: load, unload, cancel, drain."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.admin import admin_of, error_of, status_of
from tests.helpers.rpc import Request, Stop, in_loop, read_all, read_until, refused, serving, stepped, until


@in_loop
async def test_cancel_ends_a_running_call() -> None:
    """Its client gets CANCELLED_BY_ADMIN, its row is free, and the call beside it goes on."""
    async with stepped() as (server, api, gate):
        doomed, good = (api.stream(Request(prompt=name, stop=Stop(max_tokens=5))) for name in "ab")
        await until(api, lambda: len(gate.submitted) == 2)
        gate.step(3)
        (started,) = [event.started for event in await read_until(doomed, "delta") if event.HasField("started")]
        admin, generation_id = admin_of(server), started.generation_id
        answer = await admin.post(f"/admin/requests/{generation_id}/cancel", None)
        gate.open()
        refusal = await refused(read_all(doomed))
        await read_all(good)
        facts = await status_of(admin)
    assert answer.json == {"generation_id": generation_id, "cancelled": True}
    assert (refusal.code, refusal.reason) == ("ABORTED", "CANCELLED_BY_ADMIN")
    assert facts["failed"] == {"CANCELLED_BY_ADMIN": 1}
    assert facts["running_count"] == 0


@in_loop
async def test_cancel_ends_a_waiting_call() -> None:
    """One that never ran is cancelled in the queue."""
    async with stepped(max_batch=1) as (server, api, gate):
        running = api.stream(Request(prompt="a", stop=Stop(max_tokens=2)))
        await gate.submit_sent.wait()
        waiting = api.stream(Request(prompt="b", stop=Stop(max_tokens=2)))
        await read_until(waiting, "queued")
        admin = admin_of(server)
        generation_id = (await status_of(admin))["running"][1]["generation_id"]
        await admin.post(f"/admin/requests/{generation_id}/cancel", {})
        refusal = await refused(read_all(waiting))
        gate.open()
        await read_all(running)
    assert refusal.reason == "CANCELLED_BY_ADMIN"
    assert len(gate.submitted) == 1


@in_loop
async def test_cancel_of_an_unknown_request_is_not_found() -> None:
    """404, in the form of all errors."""
    async with serving() as (server, _):
        answer = await admin_of(server).post("/admin/requests/gen-none/cancel", {})
    assert answer.status == 404
    assert (error_of(answer)["reason"], error_of(answer)["field"]) == ("REQUEST_NOT_FOUND", "id")


@in_loop
async def test_a_model_is_unloaded_and_loaded_again() -> None:
    """Both answer at once with the state; then calls are refused, and taken again."""
    async with serving() as (server, api):
        admin, host = admin_of(server), server.catalog.get("")
        unloading = await admin.post("/admin/models/unload", {"model": "scripted", "force": True})
        await host.life.settled()
        refusal = await refused(api.answer("x"))
        loading = await admin.post("/admin/models/load", {"model": "scripted"})
        await host.life.settled()
        text = await api.text(Request(prompt="x", stop=Stop(max_tokens=2)))
    assert (unloading.status, unloading.json["model"]["id"]) == (202, "scripted")
    assert refusal.reason == "MODEL_NOT_FOUND"
    assert (loading.status, loading.json["model"]["state"]) == (202, "loading")
    assert text


@in_loop
async def test_drain_refuses_new_calls_and_lets_running_ones_finish() -> None:
    """As SIGTERM: health turns, the owner is told, and what was accepted ends well."""
    async with stepped() as (server, api, gate):
        running = api.stream(Request(prompt="x", stop=Stop(max_tokens=3)))
        await gate.submit_sent.wait()
        admin = admin_of(server)
        answer = await admin.post("/admin/drain", {})
        probes = [(await admin.get(path)).status for path in ("/healthz", "/readyz")]
        refusal = await refused(api.answer("y"))
        assert server.server.stop_asked.is_set()
        gate.open()
        served_all, events = await asyncio.gather(server.server.drain(), read_all(running))
    assert (answer.status, answer.json) == (202, {"state": "DRAINING", "running": 1})
    assert probes == [503, 503]
    assert refusal.reason == "DRAINING"
    assert served_all
    assert events[-1].WhichOneof("event") == "completed"


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/admin/models/load", b"no json", 400, "body"),
        ("/admin/models/load", b"\xff\xfe", 400, "body"),
        ("/admin/models/load", b"[" * 100_000, 400, "body"),
        ("/admin/models/load", [], 400, "body"),
        ("/admin/models/load", {}, 400, "model"),
        ("/admin/models/load", {"model": 7}, 400, "model"),
        ("/admin/models/load", {"model": ""}, 400, "model"),
        ("/admin/models/load", {"model": "../../etc"}, 400, "model"),
        ("/admin/models/load", {"model": "x", "force": "yes"}, 400, "force"),
        ("/admin/models/load", {"model": "x", "colour": 1}, 400, "colour"),
        ("/admin/models/unload", {"model": "nobody"}, 404, "model"),
        ("/admin/drain", {"now": True}, 400, "now"),
        ("/admin/nothing", {}, 404, ""),
        ("/admin/status/", {}, 404, ""),
        ("/admin/status", {}, 405, ""),
    ],
)
@in_loop
async def test_bad_input_is_named(path: str, body: object, status: int, field: str) -> None:
    """A 4xx in one form that names the field, and the server goes on."""
    async with serving() as (server, api):
        answer = await admin_of(server).post(path, body)
        assert await api.text(Request(prompt="x", stop=Stop(max_tokens=2)))
    assert answer.status == status
    assert error_of(answer)["field"] == field


@in_loop
async def test_a_body_over_the_limit_is_refused() -> None:
    """413 before it is read, and no crash."""
    async with serving() as (server, _):
        head = {"content-length": str(1 << 40)}
        answer = await admin_of(server).call("POST", "/admin/drain", b"{", head)
    assert (answer.status, error_of(answer)["reason"]) == (413, "BODY_TOO_LARGE")
