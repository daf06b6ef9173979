"""Chats with a real model folder, over gRPC, HTTP and a socket: what its template does not know or would lose, and text
with a token that the model has no embedding for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from websockets.asyncio.client import connect

from mlx_grpc import testing
from mlx_grpc.v1 import chat_pb2, tokenizer_service_pb2
from tests.helpers.llama import VOCAB_SIZE, make_llama
from tests.helpers.openai import CHAT, COMPLETIONS, Answer, Bridge
from tests.helpers.rpc import Api, Request, connected, refused

BEYOND = "<|beyond|>"
pb = tokenizer_service_pb2
ROLES = {"system": chat_pb2.ROLE_SYSTEM, "developer": chat_pb2.ROLE_DEVELOPER, "user": chat_pb2.ROLE_USER}
# Typed parts from users, strings from others; system turns first; no control word; no role but these.
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role in ['user', 'assistant'] or (m.role == 'system' and loop.first) %}<|{{ m.role }}|>"
    "{% if m.role == 'user' %}{% for p in m.content %}{{ p.text.replace('/no_think', '') | trim }}{% endfor %}"
    "{% else %}{{ '' + m.content }}{% endif %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.LocalServer]:
    """A two-layer Llama whose tokenizer has one token more than the model."""
    folder = make_llama(tmp_path_factory.mktemp("llama"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([BEYOND])
    assert tokenizer.token_to_id(BEYOND) == VOCAB_SIZE
    tokenizer.save(str(folder / "tokenizer.json"))
    change(folder / "tokenizer_config.json", chat_template=TEMPLATE)
    with testing.run(engine="process", model=(f"tiny={folder}",), default_max_tokens=1) as server:
        yield server


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def turns(*said: tuple[str, str]) -> chat_pb2.Chat:
    return chat_pb2.Chat(
        messages=[chat_pb2.Message(role=ROLES[role], content=[chat_pb2.ContentPart(text=text)]) for role, text in said]
    )


async def both(server: testing.LocalServer, *said: tuple[str, str]) -> tuple[str, Answer]:
    """What gRPC refuses of a chat with these turns, and what HTTP answers to it."""
    messages = [{"role": role, "content": text} for role, text in said]
    async with connected(server.target) as api:
        refusal = await refused(api.answer(Request(chat=turns(*said))))
    assert refusal.reason == "INVALID_FIELD"
    return refusal.field, await http(server).post(CHAT, {"messages": messages})


def http(server: testing.LocalServer) -> Bridge:
    host, _, port = server.server.http.address.rpartition(":")
    return Bridge(server, host, int(port))


def with_api(server: testing.LocalServer, body: Any) -> Any:
    """What the body returns, run with stubs in a loop of its own."""

    async def main() -> Any:
        async with connected(server.target) as api:
            return await body(api)

    return asyncio.run(main())


def test_a_chat_is_rendered_as_the_template_takes_it(server: testing.LocalServer) -> None:
    """A developer's turn as a system turn, the user's as typed parts, its control word taken out."""

    async def body(api: Api) -> str:
        chat = turns(("developer", "be brief"), ("user", "why? /no_think"))
        answer = await api.answer(Request(chat=chat))
        rendered = await api.tokenizer.RenderChat(pb.RenderChatRequest(chat=chat))
        assert answer.usage.prompt_tokens == len(rendered.token_ids)
        return str(rendered.text)

    assert with_api(server, body) == "<|system|>be brief<|user|>why?<|assistant|>"


def test_a_control_word_alone_is_answered_over_http(server: testing.LocalServer) -> None:
    """It is the template's business."""
    body = {"messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "/no_think"}]}
    assert asyncio.run(http(server).post(CHAT, body)).status == 200


def test_a_turn_that_would_vanish_is_named_on_both_wires(server: testing.LocalServer) -> None:
    """In the names of each."""
    said = (("user", "hi"), ("system", "hi"), ("user", "hi"))
    field, answer = asyncio.run(both(server, *said))
    assert field == "chat.messages[1].role"
    assert (answer.status, answer.error["param"]) == (400, "messages[1].role")
    assert "leaves this message of role system out" in answer.error["message"]


def test_text_beyond_the_embedding_is_refused_by_name(server: testing.LocalServer) -> None:
    """A prompt, and the message of a chat, on both wires; the engine never sees it."""

    async def prompts() -> tuple[str, Answer]:
        async with connected(server.target) as api:
            refusal = await refused(api.answer(f"so {BEYOND}"))
        assert refusal.reason == "INVALID_FIELD"
        assert BEYOND in refusal.message
        return refusal.field, await http(server).post(COMPLETIONS, {"prompt": f"so {BEYOND}"})

    field, answer = asyncio.run(prompts())
    assert (field, answer.status, answer.error["param"]) == ("prompt", 400, "prompt")
    field, answer = asyncio.run(both(server, ("system", "be kind"), ("user", f"so {BEYOND}")))
    assert (field, answer.error["param"]) == ("chat.messages[1].content", "messages[1].content")


@pytest.mark.parametrize(
    ("content", "context", "param"),
    [
        (BEYOND, "be kind", "content"),
        ("hi", BEYOND, "context[0].content"),
        ("hi", [{"role": "user", "content": "hi"}, {"role": "assistant", "content": BEYOND}], "context[1].content"),
        ("hi", [{"role": "user", "content": "hi"}, {"role": "system", "content": "hi"}], "context[1].role"),
    ],
)
def test_a_bad_turn_is_named_on_a_socket(server: testing.LocalServer, content: str, context: Any, param: str) -> None:
    """The question is its `content`, the turns before it are its `context`."""

    async def main() -> Any:
        bridge = http(server)
        async with connect(f"ws://{bridge.host}:{bridge.port}/v1/ws", proxy=None) as socket:
            await socket.send(json.dumps({"type": "text_input", "content": content, "context": context}))
            return json.loads(await socket.recv())

    error = asyncio.run(main())
    assert (error["type"], error["param"]) == ("error", param)


def test_the_tokenizer_shows_tokens_beyond_the_embedding(server: testing.LocalServer) -> None:
    """They are its own: a text comes back whole, and what is past them is still refused."""

    async def body(api: Api) -> tuple[str, int, str]:
        found = await api.tokenizer.Tokenize(pb.TokenizeRequest(text=BEYOND))
        assert list(found.token_ids) == [VOCAB_SIZE]
        back = await api.tokenizer.Detokenize(pb.DetokenizeRequest(token_ids=found.token_ids))
        counted = await api.tokenizer.CountTokens(pb.CountTokensRequest(text=BEYOND))
        refusal = await refused(api.tokenizer.Detokenize(pb.DetokenizeRequest(token_ids=[VOCAB_SIZE + 1])))
        return back.text, counted.count, refusal.field

    assert with_api(server, body) == (BEYOND, 1, "token_ids[0]")
