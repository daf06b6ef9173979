"""TokenizerService: there and back again, and the same template that generation uses."""

from __future__ import annotations

import pytest

from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.v1 import chat_pb2, tokenizer_service_pb2
from tests.helpers.rpc import Request, in_loop, refused, serving

CHAT = chat_pb2.Chat(
    messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="hi there")])]
)
RENDERED = "<|start|>user\nhi there<|end|>\n<|start|>assistant\n"


@pytest.mark.parametrize("text", ["a", "Größe 東京 🙂", " with the words", "<|end|>", "x" * 10_000, "\0\n\t"])
@in_loop
async def test_a_text_comes_back_whole(text: str) -> None:
    """Tokenize then Detokenize, and the pieces alone already hold all its bytes."""
    async with serving() as (_, api):
        found = await api.tokenizer.Tokenize(tokenizer_service_pb2.TokenizeRequest(text=text))
        back = await api.tokenizer.Detokenize(tokenizer_service_pb2.DetokenizeRequest(token_ids=found.token_ids))
        counted = await api.tokenizer.CountTokens(tokenizer_service_pb2.CountTokensRequest(text=text))
    assert back.text == text
    assert b"".join(found.pieces).decode() == text
    assert counted.count == len(found.token_ids) == len(found.pieces)
    assert counted.context_length == 4096


@in_loop
async def test_a_chat_is_counted_as_generation_counts_it() -> None:
    """RenderChat, Tokenize, CountTokens and the prompt of a generation agree."""
    async with serving(Script(replies={"assistant\n": "yes"})) as (_, api):
        rendered = await api.tokenizer.RenderChat(tokenizer_service_pb2.RenderChatRequest(chat=CHAT))
        tokenized = await api.tokenizer.Tokenize(tokenizer_service_pb2.TokenizeRequest(chat=CHAT))
        counted = await api.tokenizer.CountTokens(tokenizer_service_pb2.CountTokensRequest(chat=CHAT))
        answer = await api.answer(Request(chat=CHAT))
    assert rendered.text == RENDERED
    assert rendered.token_ids == tokenized.token_ids
    assert counted.count == len(tokenized.token_ids) == answer.usage.prompt_tokens


@in_loop
async def test_an_empty_text_has_no_tokens() -> None:
    """No error: nothing is to be generated from it."""
    async with serving() as (_, api):
        assert (await api.tokenizer.CountTokens(tokenizer_service_pb2.CountTokensRequest(text=""))).count == 0


@in_loop
async def test_what_is_wrong_is_named() -> None:
    """No input, an id outside the vocabulary, special tokens for a chat, a chat that is none."""
    pb = tokenizer_service_pb2
    async with serving() as (_, api):
        refusals = [
            await refused(api.tokenizer.Tokenize(pb.TokenizeRequest())),
            await refused(api.tokenizer.CountTokens(pb.CountTokensRequest())),
            await refused(api.tokenizer.Detokenize(pb.DetokenizeRequest(token_ids=[1, 512]))),
            await refused(api.tokenizer.Tokenize(pb.TokenizeRequest(chat=CHAT, add_special_tokens=False))),
            await refused(api.tokenizer.RenderChat(pb.RenderChatRequest())),
            await refused(api.tokenizer.RenderChat(pb.RenderChatRequest(chat=chat_pb2.Chat()))),
        ]
    fields = ["input", "input", "token_ids[1]", "add_special_tokens", "chat", "chat.messages"]
    assert [refusal.field for refusal in refusals] == fields
    assert {refusal.reason for refusal in refusals} == {"INVALID_FIELD"}
