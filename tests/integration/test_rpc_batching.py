"""How a model's rows share the device, and a row whose logits are not finite, as clients see it."""

from __future__ import annotations

import asyncio

import pytest

from mlx_grpc.engine.scripted.script import Fault, Script
from mlx_grpc.v1 import model_pb2, model_service_pb2
from tests.helpers.admin import admin_of, status_of
from tests.helpers.openai import bridge
from tests.helpers.rpc import Request, Stop, connected, in_loop, read_all, refused, serving, text_of

NONFINITE = Script(faults=[Fault("odd", "nonfinite", at_output=3)])


@pytest.mark.parametrize("batching", ["PADDED", "ALIGNED", "ALONE"])
def test_a_model_says_how_its_rows_share_the_device(batching: str) -> None:
    """In GetModel and in the admin port's status."""

    @in_loop
    async def run() -> None:
        async with serving(Script(batching=batching)) as (server, api):  # type: ignore[arg-type]
            model = (await api.models.GetModel(model_service_pb2.GetModelRequest())).model
            assert model_pb2.Batching.Name(model.batching) == f"BATCHING_{batching}"
            status = await status_of(admin_of(server))
            assert [one["batching"] for one in status["models"]] == [batching]

    run()


def test_rows_that_cannot_share_run_one_after_the_other() -> None:
    """The queue keeps them, not the engine; all of them get their text."""

    @in_loop
    async def run() -> None:
        async with serving(Script(batching="ALONE")) as (server, api):
            calls = [api.stream(Request(prompt=f"word {number}", stop=Stop(max_tokens=8))) for number in range(4)]
            texts = [text_of(events) for events in await asyncio.gather(*map(read_all, calls))]
            assert all(texts)
            assert server.catalog.get("").dispatcher.scheduler.row_limit == 1

    run()


def test_a_request_with_logits_that_are_not_finite_fails_alone() -> None:
    """The error has a reason of its own; the one beside it gets its text; the engine lives."""

    @in_loop
    async def run() -> None:
        async with bridge(NONFINITE) as http, connected(http.server.target) as api:
            good = asyncio.create_task(api.text("even"))
            refusal = await refused(api.answer("odd"))
            assert (refusal.code, refusal.reason) == ("INTERNAL", "NONFINITE_LOGITS")
            assert await good
            assert http.server.server.stats.crashes.total() == 0
            answer = await http.post("/v1/completions", {"model": "scripted", "prompt": "odd"})
            assert answer.status == 500
            assert answer.error["code"] == "nonfinite_logits"

    run()
