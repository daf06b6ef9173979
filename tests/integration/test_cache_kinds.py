"""The fixture of cache kinds: each folder is a model that a real server loads, and answers with over gRPC."""

from __future__ import annotations

import asyncio

import mlx.core as mx
import pytest

from mlx_grpc.v1 import chat_pb2, tokenizer_service_pb2
from tests.helpers import openai
from tests.helpers.models.kinds import ONE_OF_EACH, TinyModel
from tests.helpers.rpc import Output, Request, Stop, in_loop, serving
from tests.sweep.reference import Reference

CHAT = chat_pb2.Chat(
    messages=[
        chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="What makes the sun go down?")])
    ]
)
MAX_TOKENS = 12


@pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="equality is the CPU's")
@pytest.mark.parametrize("cache_kind", ONE_OF_EACH, indirect=True)
@in_loop
async def test_a_server_answers_a_chat_as_mlx_lm_does(cache_kind: TinyModel) -> None:
    """One model of each kind, loaded by a server: a greedy chat has the tokens that mlx_lm gives for the rendered
    text."""
    async with serving(model=(f"tiny={cache_kind.folder}",)) as (_, api):
        rendered = await api.tokenizer.RenderChat(tokenizer_service_pb2.RenderChatRequest(chat=CHAT))
        answer = await api.answer(
            Request(chat=CHAT, stop=Stop(max_tokens=MAX_TOKENS, ignore_eos=True), output=Output(token_ids=True))
        )
    wanted = Reference(cache_kind.folder).answer(list(rendered.token_ids), MAX_TOKENS)
    assert wanted.tokens
    assert list(answer.candidates[0].token_ids)[: len(wanted.tokens)] == wanted.tokens


@pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="equality is the CPU's")
@pytest.mark.parametrize("cache_kind", ONE_OF_EACH, indirect=True)
@in_loop
async def test_http_answers_as_grpc_does_in_one_batch(cache_kind: TinyModel) -> None:
    """One model of each kind: the same questions over both wires at once, streamed over HTTP, have the same texts as
    one by one over gRPC; the second time the prefix cache may hold their prompts."""
    questions = ["What?", "What makes the sun go down in the evening, and come up again in the morning?", "Why so?"]
    async with serving(model=(f"tiny={cache_kind.folder}",)) as (server, api):
        http = openai.bridge_of(server)

        async def over_grpc(question: str) -> str:
            part = chat_pb2.ContentPart(text=question)
            chat = chat_pb2.Chat(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part])])
            return await api.text(Request(chat=chat, stop=Stop(max_tokens=MAX_TOKENS, ignore_eos=True)))

        async def over_http(question: str) -> str:
            body = openai.chat(question, stream=True, temperature=0, max_tokens=MAX_TOKENS, ignore_eos=True)
            return (await http.post(openai.CHAT, body)).text

        alone = [await over_grpc(question) for question in questions]
        for _ in range(2):
            calls = [wire(question) for question in questions for wire in (over_grpc, over_http)]
            assert await asyncio.gather(*calls) == [text for text in alone for _ in range(2)]
        assert all(alone)
