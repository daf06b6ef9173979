"""What the admin port tells: status, probes, metrics."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from mlx_grpc.engine.scripted.script import Script
from tests.helpers.admin import admin_of, error_of, status_of
from tests.helpers.openai import Bridge
from tests.helpers.rpc import Request, Sampling, Stop, in_loop, read_all, read_until, refused, serving, stepped


async def metrics_of(admin: Bridge) -> dict[tuple[str, str], float]:
    """Values by name and labels; the model's label is left out."""
    answer = await admin.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "model")
            found[sample.name, labels] = sample.value
    return found


@in_loop
async def test_an_idle_server_tells_what_it_is() -> None:
    """Version, process, state, limits; and nothing is in flight."""
    async with serving(max_queue=7, max_batch=3) as (server, _):
        facts = await status_of(admin_of(server))
    assert (facts["pid"], facts["state"], facts["reason"]) == (os.getpid(), "SERVING", "")
    assert (facts["queue_depth"], facts["queue_limit"], facts["active_rows"], facts["row_limit"]) == (0, 7, 0, 3)
    assert facts["running"] == facts["recent_errors"] == []
    assert [model["state"] for model in facts["models"]] == ["ready"]
    assert facts["uptime_seconds"] > 0


@in_loop
async def test_running_requests_are_told_without_what_they_say() -> None:
    """One generates, one waits: ids, ages and counts, and no text of either."""
    async with stepped(max_batch=1) as (server, api, gate):
        first = api.stream(Request(prompt="secret words", request_id="mine", stop=Stop(max_tokens=9)))
        await gate.submit_sent.wait()
        second = api.stream(Request(prompt="more secret words", stop=Stop(max_tokens=2)))
        await read_until(second, "queued")
        gate.step(4)
        await read_until(first, "delta")
        answer = await admin_of(server).get("/admin/status")
        gate.open()
        await read_all(first)
        await read_all(second)
    facts = answer.json
    running, waiting = facts["running"]
    assert (running["request_id"], running["state"], running["max_tokens"]) == ("mine", "decode", 9)
    assert running["generated_tokens"] >= 1
    assert waiting["state"] == "waiting"
    assert waiting["generation_id"].startswith("gen-")
    assert (facts["running_count"], facts["active_rows"], facts["queue_by_priority"]["normal"]) == (2, 1, 1)
    assert b"secret" not in answer.body


@in_loop
async def test_counts_and_latencies_follow_the_calls() -> None:
    """Two complete, one is refused: counted by reason; the refusal is remembered by its field alone."""
    async with serving() as (server, api):
        for _ in range(2):
            await api.answer(Request(prompt="x", stop=Stop(max_tokens=3)))
        await refused(api.answer(Request(prompt="x", sampling=Sampling(temperature=-1))))
        facts = await status_of(admin_of(server))
    assert (facts["accepted"], facts["completed"], facts["refused"]) == (2, {"length": 2}, {"INVALID_FIELD": 1})
    assert facts["generated_tokens"] == 6
    assert facts["first_token_seconds"]["p50"] is not None
    error = facts["recent_errors"][0]
    assert (error["reason"], error["message"]) == ("INVALID_FIELD", "field sampling.temperature")


@in_loop
async def test_memory_is_told_in_bytes() -> None:
    """What the running rows reserve, of what there is."""
    script = Script(kv_bytes_per_token=1000, memory_bytes=1_000_000, weights_bytes=100_000)
    async with stepped(script) as (server, api, gate):
        call = api.stream(Request(prompt="x", stop=Stop(max_tokens=9)))
        await gate.submit_sent.wait()
        facts = await status_of(admin_of(server))
        gate.open()
        await read_all(call)
    assert facts["kv_reserved_bytes"] >= 10 * 1000
    assert facts["kv_reserved_bytes"] < facts["kv_budget_bytes"] < 900_001
    assert facts["models"][0]["weights_bytes"] == 100_000


@in_loop
async def test_metrics_are_those_of_the_status() -> None:
    """Counters, gauges and histograms, in Prometheus' form."""
    async with serving(max_queue=7) as (server, api):
        await api.answer(Request(prompt="x", stop=Stop(max_tokens=3)))
        await refused(api.answer(Request(prompt="x", sampling=Sampling(temperature=-1))))
        found = await metrics_of(admin_of(server))
    assert found["mlx_grpc_requests_accepted_total", ""] == 1
    assert found["mlx_grpc_requests_refused_total", "reason=INVALID_FIELD"] == 1
    assert found["mlx_grpc_generated_tokens_total", ""] == 3
    assert found["mlx_grpc_queue_depth", "priority=normal"] == 0
    assert found["mlx_grpc_queue_depth_limit", ""] == 7
    assert found["mlx_grpc_first_token_seconds_count", ""] == 1
    assert found["mlx_grpc_first_token_seconds_bucket", "le=+Inf"] == 1
    assert found["mlx_grpc_state", "state=SERVING"] == 1
    assert found["mlx_grpc_stall_seconds", ""] == 0
    assert ("mlx_grpc_event_loop_lag_seconds", "") in found


@in_loop
async def test_metrics_count_restarts_from_the_start() -> None:
    """A counter that has not counted yet is there with 0, so that its first step is a rate."""
    async with serving() as (server, _):
        found = await metrics_of(admin_of(server))
    names = ("engine_restarts", "engine_crashes", "engine_stalls", "requests_resumed")
    assert {found[f"mlx_grpc_{name}_total", ""] for name in names} == {0}


@in_loop
async def test_ready_is_whether_a_call_would_be_taken() -> None:
    """200 when the default model is ready; 503 with the reason when it is not, and the process lives all the same."""
    async with serving() as (server, _):
        admin = admin_of(server)
        assert (await admin.get("/readyz")).json == {"status": "SERVING"}
        await admin.post("/admin/models/unload", {"model": "scripted"})
        await server.catalog.get("").life.settled()
        answer = await admin.get("/readyz")
        alive = await admin.get("/healthz")
    assert answer.status == 503
    assert error_of(answer)["reason"] == "MODEL_NOT_FOUND"
    assert alive.status == 200


@in_loop
async def test_a_model_that_failed_says_why() -> None:
    """State FAILED, not ready, and the reason for a person."""
    async with serving(Script()) as (server, _):
        host = server.catalog.get("")
        await host.close()
        host.life.error = "its weights are missing"
        facts: dict[str, Any] = await status_of(admin_of(server))
    assert facts["models"][0]["error"] == "its weights are missing"
