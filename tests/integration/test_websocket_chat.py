"""/v1/ws over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from mlx_grpc.http.websocket.conversation import Sockets
from mlx_grpc.http.websocket.questions import MAX_WAITING_QUESTIONS
from mlx_grpc.testing import Fault, Script
from tests.helpers.gate import freed, gated, until
from tests.helpers.openai import PATIENCE_SECONDS, Bridge, bridge

SCRIPT = Script(replies={f"{name}\nassistant\n": reply for name, reply in {"ping": "pong!", "a": "b"}.items()})


class Socket:
    """A client's end."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def answer(self) -> list[dict[str, Any]]:
        """All messages up to the one that ends an answer."""
        messages = [await self.next()]
        while messages[-1]["type"] not in ("response_complete", "error"):
            messages.append(await self.next())
        return messages


@asynccontextmanager
async def socket(running: Bridge, origin: str | None = None) -> AsyncIterator[Socket]:
    url = f"ws://{running.host}:{running.port}/v1/ws"
    async with connect(url, origin=origin, proxy=None) as connection:  # type: ignore[arg-type]
        yield Socket(connection)


def talking(body: Callable[[Socket], Coroutine[Any, Any, None]], script: Script = SCRIPT) -> None:
    """Runs a test's body with a socket to a server."""

    async def main() -> None:
        async with bridge(script) as running, socket(running) as client:
            await body(client)

    asyncio.run(main())


def test_a_question_is_answered() -> None:
    """Start, tokens with their time, and the whole at the end."""

    async def body(client: Socket) -> None:
        await client.say("text_input", content="ping")
        start, *tokens, complete = await client.answer()
        assert start["type"] == "response_start"
        assert "".join(token["content"] for token in tokens) == "pong!" == complete["full_text"]
        assert all(token["type"] == "token" and token["timestamp"] > 0 for token in tokens)
        assert complete["usage"]["completion_tokens"] == 6
        assert complete["inference_time"] > 0
        assert complete["finish_reason"] == "stop"

    talking(body)


def test_questions_are_answered_in_order() -> None:
    """The second one waits for the first one's end."""

    async def body(client: Socket) -> None:
        await client.say("text_input", content="ping")
        await client.say("text_input", content="a")
        first, second = await client.answer(), await client.answer()
        assert (first[-1]["full_text"], second[-1]["full_text"]) == ("pong!", "b")
        assert [message["type"] for message in first + second].count("response_start") == 2

    talking(body)


def test_context_goes_before_the_question() -> None:
    """A text is a system message, turns are turns: both are counted as prompt."""

    async def body(client: Socket) -> None:
        counts = []
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
        for fields in ({}, {"context": "be short"}, {"context": turns}, {"context": None}):
            await client.say("text_input", content="ping", **fields)
            counts.append((await client.answer())[-1]["usage"]["prompt_tokens"])
        assert counts[0] == counts[3] < counts[1]
        assert counts[2] > counts[0]

    talking(body)


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ("no json", None, "invalid_json"),
        ("[1]", None, "invalid_type"),
        ("{}", "type", "invalid_value"),
        (b"bytes", None, "invalid_type"),
        ('{"type": "image_input", "content": "x"}', "type", "unsupported_parameter"),
        ('{"type": "text_input"}', "content", "missing_required_parameter"),
        ('{"type": "text_input", "content": 1}', "content", "invalid_type"),
        ('{"type": "text_input", "content": "x", "colour": 1}', "colour", "unknown_parameter"),
        (
            '{"type": "text_input", "content": "x", "context": [{"role": "user", "content": "y", "name": "z"}]}',
            "context[0].name",
            "unsupported_parameter",
        ),
        (
            '{"type": "text_input", "content": "x", "context": [{"role": "user"}]}',
            "context[0].content",
            "missing_required_parameter",
        ),
        ('{"type": "config", "topP": 2}', "topP", "invalid_value"),
        ('{"type": "config", "temperature": true}', "temperature", "invalid_type"),
        ('{"type": "config", "maxOutputTokens": 0}', "maxOutputTokens", "invalid_value"),
        ("[" * 5000, None, "invalid_json"),
    ],
)
def test_a_bad_message_gets_an_error_and_the_socket_lives(message: str | bytes, param: str | None, code: str) -> None:
    """The field is named in the socket's words; the next question is answered."""

    async def body(client: Socket) -> None:
        await client.connection.send(message)
        error = await client.next()
        assert (error["type"], error["param"], error["code"]) == ("error", param, code)
        assert error["ends_answer"] is False
        await client.say("text_input", content="ping")
        assert (await client.answer())[-1]["full_text"] == "pong!"

    talking(body)


def test_parameters_belong_to_the_socket() -> None:
    """They hold for the questions after them, on this socket alone; a bad message changes none of them."""

    async def main() -> None:
        async with bridge(SCRIPT) as running, socket(running) as mine, socket(running) as other:
            await mine.say("config", maxOutputTokens=2, temperature=0.5)
            await mine.say("config", maxOutputTokens=1, topP=9)
            assert (await mine.next())["param"] == "topP"
            await mine.say("text_input", content="ping")
            assert (await mine.answer())[-1]["full_text"] == "po"
            await mine.say("config", maxOutputTokens=None)
            await mine.say("text_input", content="ping")
            assert (await mine.answer())[-1]["full_text"] == "pong!"
            await other.say("text_input", content="ping")
            assert (await other.answer())[-1]["full_text"] == "pong!"

    asyncio.run(main())


def test_cancel_ends_the_answer_and_not_the_socket(tmp_path: Path) -> None:
    """What was said is kept, the row is freed, and the question that waits is answered."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate), socket(running) as client:
            await client.say("text_input", content="first")
            await client.say("text_input", content="second")
            gate.step(3)
            assert (await client.next())["type"] == "response_start"
            said = (await client.next())["content"]
            await client.say("cancel")
            gate.free()
            *_, complete = await client.answer()
            assert complete["finish_reason"] == "cancelled"
            assert complete["full_text"].startswith(said)
            assert complete["usage"] is None
            assert (await client.answer())[-1]["finish_reason"] == "length"
            await freed(running)

    asyncio.run(main())


def test_cancel_twice_at_once(tmp_path: Path) -> None:
    """As people press a button; there is no other question that the second could end."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate), socket(running) as client:
            await client.say("text_input", content="x")
            gate.step(3)
            assert (await client.next())["type"] == "response_start"
            await client.say("cancel")
            await client.say("cancel")
            assert (await client.answer())[-1]["finish_reason"] == "cancelled"
            gate.free()
            await client.say("config", maxOutputTokens=1)
            await client.say("text_input", content="y")
            assert (await client.answer())[-1]["finish_reason"] == "length"

    asyncio.run(main())


def test_cancel_without_an_answer_is_nothing() -> None:
    """It may cross the end of the answer on its way."""

    async def body(client: Socket) -> None:
        await client.say("cancel")
        await client.say("text_input", content="ping")
        assert (await client.answer())[-1]["full_text"] == "pong!"
        await client.say("cancel")
        await client.say("text_input", content="a")
        assert (await client.answer())[-1]["full_text"] == "b"

    talking(body)


def test_closing_the_socket_frees_the_row(tmp_path: Path) -> None:
    """And the questions that waited are gone."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate):
            stats = running.server.server.stats
            async with socket(running) as client:
                await client.say("text_input", content="x")
                await client.say("text_input", content="y")
                gate.step(3)
                await client.next()
                await client.next()
            await until(lambda: stats.abandoned.total() == 1)
            gate.step()
            await freed(running)
            assert stats.accepted.total() == 1

    asyncio.run(main())


def test_questions_that_wait_are_bounded(tmp_path: Path) -> None:
    """One too many is refused, and all others are answered."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate), socket(running) as client:
            await client.say("config", maxOutputTokens=1)
            for _ in range(MAX_WAITING_QUESTIONS + 2):
                await client.say("text_input", content="x")
            error = await client.next()
            assert (error["type"], error["code"]) == ("error", "too_many_questions")
            gate.free()
            for _ in range(MAX_WAITING_QUESTIONS + 1):
                assert (await client.answer())[-1]["type"] == "response_complete"

    asyncio.run(main())


def test_an_answer_that_fails_ends_with_an_error() -> None:
    """The socket lives."""

    async def body(client: Socket) -> None:
        await client.say("text_input", content="break")
        *_, error = await client.answer()
        assert (error["type"], error["ends_answer"]) == ("error", True)
        await client.say("config", maxOutputTokens=1)
        await client.say("text_input", content="x")
        assert (await client.answer())[-1]["type"] == "response_complete"

    talking(body, Script(faults=[Fault(text="break", action="fail", at_output=2)]))


def test_pages_of_other_origins_need_the_flag() -> None:
    """Browsers ask no leave for a WebSocket, so it is refused here."""

    async def main() -> None:
        async with bridge(SCRIPT, cors_origin=("http://page.example",)) as running:
            with pytest.raises(InvalidStatus) as caught:
                async with socket(running, "http://evil.example"):
                    pass
            assert caught.value.response.status_code == 403
            async with socket(running, "http://page.example") as client:
                await client.say("text_input", content="ping")
                assert (await client.answer())[-1]["full_text"] == "pong!"
            async with socket(running, running.url):
                pass

    asyncio.run(main())


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    """The endpoint ends, and the row is freed: here with a connection that is stuck from the second message on."""

    async def main() -> None:
        async with bridge() as running:
            heard: asyncio.Queue[Message] = asyncio.Queue()
            heard.put_nowait({"type": "websocket.connect"})
            heard.put_nowait({"type": "websocket.receive", "text": '{"type": "text_input", "content": "x"}'})
            sent: list[Message] = []

            async def send(message: Message) -> None:
                sent.append(message)
                if len(sent) > 2:
                    await asyncio.Event().wait()

            scope = {"type": "websocket", "headers": [], "path": "/v1/ws", "query_string": b"", "subprotocols": []}
            async with asyncio.timeout(PATIENCE_SECONDS):
                await Sockets(running.server.server.service, (), 0.05)(scope, heard.get, send)
            assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.send"]
            await freed(running)

    asyncio.run(main())


def test_a_message_over_the_limit_closes_the_socket() -> None:
    """Nothing larger than --max-request-bytes is held."""

    async def main() -> None:
        async with bridge(SCRIPT, max_request_bytes=4096) as running, socket(running) as client:
            await client.say("text_input", content="x" * 5000)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await client.connection.wait_closed()
            assert client.connection.close_code == 1009

    asyncio.run(main())


def test_a_negative_limit_is_reported_as_it_was_sent() -> None:
    """In the socket's own names."""

    async def body(client: Socket) -> None:
        await client.say("config", maxOutputTokens=-1)
        error = await client.next()
        assert error["param"] == "maxOutputTokens"
        assert "is -1," in error["message"]

    talking(body)
