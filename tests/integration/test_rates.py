"""Limits for each client: who is refused, when it may come again, and what goes on. Over gRPC, HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from websockets.asyncio.client import connect

from mlx_grpc import testing
from mlx_grpc.v1 import chat_pb2, model_service_pb2, server_service_pb2, tokenizer_service_pb2
from tests.helpers.auth import TokenFolder
from tests.helpers.openai import CHAT, Answer, Bridge, bridge, chat
from tests.helpers.rpc import (
    Api,
    Refusal,
    Request,
    Stop,
    connected,
    in_loop,
    read_all,
    read_refusal,
    read_until,
    refused,
    serving,
    stepped,
    until,
)

FEW = Stop(max_tokens=2)
ASK = Request(prompt="hi", stop=FEW)
CONVERSATION = chat_pb2.Chat(
    messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="hi")])]
)
SCRIPT = testing.Script(replies={"ping\nassistant\n": "pong"})


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def both_ports(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[TokenFolder, Bridge, Api]]:
    """A server that needs tokens, over gRPC and over HTTP."""
    tokens = TokenFolder(tmp_path)
    async with bridge(SCRIPT, tokens=tokens.path, **settings) as http, connected(http.server.target) as api:
        yield tokens, http, api


async def posted(http: Bridge, token: str) -> Answer:
    return await http.post(CHAT, chat("ping"), {"Authorization": f"Bearer {token}"})


@in_loop
async def test_a_client_over_its_rate_is_told_when_to_come_again() -> None:
    """By RetryInfo, by what grpc's own retries read, and by the limit's name."""
    async with serving(client_requests_per_minute=2) as (server, api):
        await api.answer(ASK)
        refusals = [await refused(api.answer(ASK)), await refused(read_all(api.stream(ASK)))]
        stats = server.server.stats
    for refusal in refusals:
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert refusal.retry_seconds is not None
        assert 25 < refusal.retry_seconds <= 30
        assert refusal.trailing["grpc-retry-pushback-ms"] == str(round(refusal.retry_seconds * 1000))
        assert refusal.metadata == {"limit": "client_requests_per_minute"}
    assert stats.refused == {"RATE_LIMITED": 2}


@in_loop
async def test_whoever_comes_when_told_is_served() -> None:
    """Seventy requests as fast as they may come, each after the delay that it was told: none is refused twice."""
    async with serving(client_requests_per_minute=600) as (server, api):
        refusals = 0
        for _ in range(70):
            try:
                await api.answer(ASK)
            except grpc.aio.AioRpcError as error:
                refusals += 1
                await asyncio.sleep(read_refusal(error).retry_seconds or 0)
                await api.answer(ASK)
        assert server.server.stats.accepted.total() == 70
        assert refusals > 0


@in_loop
async def test_http_says_429_and_when(tmp_path: Path) -> None:
    """In the headers that SDKs read, and with a code of its own."""
    async with both_ports(tmp_path, client_requests_per_minute=2) as (tokens, http, _):
        assert (await posted(http, tokens.generate)).status == 200
        answer = await posted(http, tokens.generate)
    error = answer.error
    assert (answer.status, error["code"], error["type"]) == (429, "rate_limited", "rate_limit_error")
    assert 25 < int(answer.headers["retry-after"]) <= 30
    assert 25_000 < int(answer.headers["retry-after-ms"]) <= 30_000


@in_loop
async def test_a_socket_says_when_in_its_error(tmp_path: Path) -> None:
    """The question is answered by an error; the socket stays open."""
    async with both_ports(tmp_path, client_requests_per_minute=2) as (tokens, http, _):
        headers = {"Authorization": f"Bearer {tokens.generate}"}
        async with connect(f"ws://{http.host}:{http.port}/v1/ws", additional_headers=headers, proxy=None) as socket:
            kinds = []
            for _ in range(2):
                await socket.send(json.dumps({"type": "text_input", "content": "ping"}))
                while (message := json.loads(await socket.recv()))["type"] not in ("response_complete", "error"):
                    pass
                kinds.append(message["type"])
    assert kinds == ["response_complete", "error"]
    assert (message["code"], message["ends_answer"]) == ("rate_limited", True)
    assert 25 < message["retry_after"] <= 30


@in_loop
async def test_a_token_is_one_client_on_all_ports(tmp_path: Path) -> None:
    """What it had over HTTP counts over gRPC; another token at the same address has its own."""
    async with both_ports(tmp_path, client_requests_per_minute=2) as (tokens, http, api):
        assert (await posted(http, tokens.generate)).status == 200
        refusal = await refused(api.answer(ASK, metadata=bearer(tokens.generate)))
        await api.answer(ASK, metadata=bearer(tokens.other))
        assert (await posted(http, tokens.other)).status == 429
    assert refusal.reason == "RATE_LIMITED"


@in_loop
async def test_without_tokens_an_address_is_one_client() -> None:
    """Whatever connection, and whichever port."""
    async with bridge(SCRIPT, client_requests_per_minute=2) as http:
        assert (await http.post(CHAT, chat("ping"))).status == 200
        assert (await http.post(CHAT, chat("ping"))).status == 429
        async with connected(http.server.target) as api:
            assert (await refused(api.answer(ASK))).reason == "RATE_LIMITED"


@in_loop
async def test_tokenizer_calls_count_as_requests() -> None:
    """Each of the four."""
    async with serving(client_requests_per_minute=2) as (server, api):
        await api.tokenizer.CountTokens(tokenizer_service_pb2.CountTokensRequest(text="hi"))
        calls = [
            api.tokenizer.CountTokens(tokenizer_service_pb2.CountTokensRequest(text="hi")),
            api.tokenizer.Tokenize(tokenizer_service_pb2.TokenizeRequest(text="hi")),
            api.tokenizer.Detokenize(tokenizer_service_pb2.DetokenizeRequest(token_ids=[65])),
            api.tokenizer.RenderChat(tokenizer_service_pb2.RenderChatRequest(chat=CONVERSATION)),
            api.answer(ASK),
        ]
        assert [(await refused(call)).reason for call in calls] == ["RATE_LIMITED"] * 5
        assert server.server.stats.refused == {"RATE_LIMITED": 5}


@in_loop
async def test_health_and_lists_cost_nothing() -> None:
    """A probe, or a page that shows the models, takes nothing from whoever shares its address."""
    async with serving(client_requests_per_minute=1) as (_, api):
        for _ in range(20):
            await api.health.Check(health_pb2.HealthCheckRequest())
            await api.models.ListModels(model_service_pb2.ListModelsRequest())
            info = await api.info.GetServerInfo(server_service_pb2.GetServerInfoRequest())
        await api.answer(ASK)
    assert info.limits.client_requests_per_minute == 1
    assert not info.limits.HasField("client_tokens_per_minute")


@in_loop
async def test_tokens_are_counted_as_they_come() -> None:
    """Prompt and output: the call that overdraws goes on to its end, and the next is refused until it is paid for."""
    async with stepped(client_tokens_per_minute=600) as (server, api, gate):
        # A bucket of 60 tokens.
        running = api.stream(Request(prompt="x" * 50, stop=Stop(max_tokens=100, ignore_eos=True)))
        await gate.submit_sent.wait()
        small = api.stream(ASK)
        await until(api, lambda: server.server.stats.accepted.total() == 2)
        gate.open()
        events = await read_all(running)
        await read_all(small)
        refusal = await refused(api.answer(ASK))
    assert events[-1].completed.usage.completion_tokens == 100
    assert refusal.metadata == {"limit": "client_tokens_per_minute"}
    # 50 + 100 + 2 + 2 tokens are 94 more than the bucket held, at 10 a second.
    assert refusal.retry_seconds is not None
    assert 5.0 < refusal.retry_seconds <= 9.4


@in_loop
async def test_prompts_alone_overdraw_once() -> None:
    """A prompt is paid for when it is accepted, so that many at once do not all pass."""
    async with stepped(client_tokens_per_minute=600) as (server, api, gate):
        calls = [asyncio.ensure_future(read_all(api.stream(Request(prompt="x" * 100, stop=FEW)))) for _ in range(10)]
        stats = server.server.stats
        await until(api, lambda: stats.accepted.total() + stats.refused.total() == 10)
        gate.open()
        await asyncio.gather(*calls, return_exceptions=True)
    assert stats.accepted.total() == 1
    assert stats.refused == {"RATE_LIMITED": 9}


@in_loop
async def test_rows_are_limited_for_each_client(tmp_path: Path) -> None:
    """More of one client's wait, and are not refused; another's run meanwhile; all end."""
    tokens = TokenFolder(tmp_path)
    async with stepped(tokens=tokens.path, max_batch=8, client_rows=2) as (server, api, gate):
        greedy = [api.stream(ASK, metadata=bearer(tokens.generate)) for _ in range(5)]
        await until(api, lambda: server.server.stats.accepted.total() == 5, at_least=5)
        assert len(gate.submitted) == 2
        modest = api.stream(ASK, metadata=bearer(tokens.other))
        await until(api, lambda: len(gate.submitted) == 3)
        assert server.active_rows == 3
        gate.open()
        for call in (*greedy, modest):
            assert (await read_all(call))[-1].completed.usage.completion_tokens == 2


@in_loop
async def test_waiting_places_are_limited_for_each_client(tmp_path: Path) -> None:
    """One too many is refused as such; another client's waits."""
    tokens = TokenFolder(tmp_path)
    async with stepped(tokens=tokens.path, max_batch=1, client_waiting=2) as (server, api, gate):
        mine, others = bearer(tokens.generate), bearer(tokens.other)
        calls = [api.stream(ASK, metadata=mine)]
        await gate.submit_sent.wait()
        calls += [api.stream(ASK, metadata=mine) for _ in range(2)]
        for call in calls[1:]:
            await read_until(call, "queued")
        refusal: Refusal = await refused(api.answer(ASK, metadata=mine))
        calls.append(api.stream(ASK, metadata=others))
        await until(api, lambda: server.server.stats.accepted.total() == 4)
        gate.open()
        for call in calls:
            await read_all(call)
    assert (refusal.reason, refusal.metadata) == ("RATE_LIMITED", {"limit": "client_waiting"})
    assert refusal.retry_seconds is not None
    assert refusal.retry_seconds > 0
