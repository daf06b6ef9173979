"""How calls end badly: ids, logs without prompts, and bugs of ours that touch nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from mlx_grpc.engine.scripted.script import Fault, Script
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import server_service_pb2, tokenizer_service_pb2
from tests.helpers.rpc import Request, Sampling, Stop, in_loop, read_all, refused, serving, stepped, text_of

SECRET = "my bank account"


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """All of our log, whatever an earlier test has set up."""
    monkeypatch.setattr(logging.getLogger("mlx_grpc"), "propagate", True)
    with caplog.at_level(logging.DEBUG, logger="mlx_grpc"):
        yield caplog


def test_neither_prompt_nor_answer_is_ever_logged(log: pytest.LogCaptureFixture) -> None:
    """Not when a call is served, refused, or cancelled."""

    @in_loop
    async def run() -> None:
        async with serving(Script(replies={SECRET: f"{SECRET} is empty"})) as (_, api):
            assert SECRET in await api.text(SECRET)
            await refused(api.answer(Request(prompt=SECRET, model="nobody")))
            await refused(api.answer(Request(prompt=SECRET, sampling=Sampling(top_p=9.0))))
            await refused(api.answer(Request(prompt="hi", stop=Stop(stop_strings=[SECRET * 100]))))
            await refused(api.answer(SECRET * 10_000))
            call = api.stream(SECRET)
            await call.read()
            call.cancel()

    run()
    assert "INVALID_FIELD sampling.top_p" in log.text
    assert SECRET not in log.text


def test_an_accepted_call_is_logged_with_its_ids(log: pytest.LogCaptureFixture) -> None:
    """The client's beside the server's."""

    @in_loop
    async def run() -> None:
        async with serving() as (_, api):
            answer = await api.answer(Request(prompt="hi", request_id="order 66", stop=Stop(max_tokens=1)))
        assert f"{answer.generation_id} accepted" in log.text

    run()
    assert "order 66" in log.text


def test_a_bug_of_ours_has_an_id_that_the_log_has(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client learns the id and nothing else; the log has the traceback under it."""

    def broken(self: Service, model: str, client: str) -> None:
        raise RuntimeError("a wheel came off")

    monkeypatch.setattr(Service, "tokenizer", broken)

    @in_loop
    async def run() -> None:
        async with serving() as (_, api):
            refusal = await refused(api.tokenizer.Tokenize(tokenizer_service_pb2.TokenizeRequest(text="hi")))
            assert await api.text(Request(prompt="hi", stop=Stop(max_tokens=1)))
        assert (refusal.code, refusal.reason) == ("INTERNAL", "INTERNAL")
        assert "wheel" not in refusal.message
        assert f"error {refusal.metadata['error_id']}" in log.text

    run()
    assert "a wheel came off" in log.text


@in_loop
async def test_a_row_that_the_engine_cannot_take_fails_alone() -> None:
    """INTERNAL with an id and the generation's ids; the stream beside it gets all its text."""
    script = Script(replies={"fine": "all of it"}, faults=[Fault(text="boom", action="fail", at_output=2)])
    async with stepped(script) as (server, api, gate):
        fine, broken = api.stream("fine"), api.stream(Request(prompt="boom", request_id="mine"))
        reading = asyncio.gather(read_all(fine), refused(read_all(broken)))
        gate.open()
        events, refusal = await reading
        await server.catalog.get("").dispatcher.idle()
    assert text_of(events) == "all of it"
    assert (refusal.code, refusal.reason) == ("INTERNAL", "INTERNAL")
    assert refusal.metadata["error_id"]
    assert refusal.trailing["x-request-id"] == "mine"
    assert refusal.trailing["x-generation-id"]


def test_many_calls_that_are_left_leave_no_traceback(log: pytest.LogCaptureFixture) -> None:
    """A client that goes while it is written to is no error of ours, and no task of its call is left."""

    @in_loop
    async def run() -> None:
        async with serving() as (server, api):
            before = len(asyncio.all_tasks())
            for _ in range(5):
                calls = [api.stream(Request(prompt="hi", stop=Stop(max_tokens=500))) for _ in range(20)]
                for call in calls:
                    await call.read()
                    call.cancel()
            await server.catalog.get("").dispatcher.idle()
            assert server.active_rows == 0
            while len(asyncio.all_tasks()) > before + 2:
                await api.info.GetServerInfo(server_service_pb2.GetServerInfoRequest())

    run()
    assert "Traceback" not in log.text
    assert not [record for record in log.records if record.levelno >= logging.WARNING]
