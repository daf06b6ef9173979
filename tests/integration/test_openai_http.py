"""The OpenAI-compatible port over bare HTTP: answers, errors, headers, and what happens when a client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc.http.openai import calls as openai_calls
from mlx_grpc.request import Priority
from mlx_grpc.testing import Fault, Script
from tests.helpers.gate import accepted, freed, gated, until
from tests.helpers.openai import CHAT, COMPLETIONS, Bridge, bridge, chat

PING = Script(replies={"ping\nassistant\n": "pöng \u2028!", "ping": "pong"})


def served(body: Callable[[Bridge], Coroutine[Any, Any, None]], script: Script | None = None, **settings: Any) -> None:
    """Runs a test's body beside a server, in one event loop."""

    async def main() -> None:
        async with bridge(script, **settings) as running:
            await body(running)

    asyncio.run(main())


def test_a_chat_is_answered_whole() -> None:
    """In the form that OpenAI gives, and with our ids and the seed in the headers."""

    async def body(running: Bridge) -> None:
        answer = await running.post(CHAT, chat("ping"), {"X-Request-Id": "mine"})
        assert answer.status == 200
        assert answer.json["object"] == "chat.completion"
        (choice,) = answer.json["choices"]
        assert choice["message"]["content"] == "pöng \u2028!"
        assert choice["finish_reason"] == "stop"
        usage = answer.json["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["x-generation-id"].startswith("gen-")
        assert answer.headers["x-seed"].isdigit()

    served(body, PING)


def test_a_chat_streams_deltas() -> None:
    """The role first, then text, then the reason, the usage when it was asked for, and the mark of the end."""

    async def body(running: Bridge) -> None:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        answer = await running.post(CHAT, chat("ping", **options))
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        first, *_, reason, usage, done = answer.events
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert answer.text == "pöng \u2028!"
        assert reason["choices"][0]["finish_reason"] == "stop"
        assert reason["usage"] is None
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] > 0
        assert done == "[DONE]"
        assert "\u2028".encode() not in answer.body  # some readers take it for the end of a line

    served(body, PING)


def test_plain_completions() -> None:
    """Text, token ids and a list of one give the same; a stream gives what the whole answer does."""

    async def body(running: Bridge) -> None:
        for prompt in ("ping", ["ping"], list(b"ping"), [list(b"ping")]):
            answer = await running.post(COMPLETIONS, {"prompt": prompt})
            assert answer.json["choices"][0]["text"] == "pong"
        answer = await running.post(COMPLETIONS, {"prompt": "ping", "stream": True})
        *chunks, done = answer.events
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "pong"
        assert done == "[DONE]"

    served(body, PING)


def test_logprobs_of_plain_completions() -> None:
    """The older form; a stream's offsets go on where the chunk before ended."""

    async def body(running: Bridge) -> None:
        fields = {"prompt": "ping", "logprobs": 2}
        whole = (await running.post(COMPLETIONS, fields)).json["choices"][0]["logprobs"]
        assert whole["tokens"] == list("pong")
        assert whole["text_offset"] == [0, 1, 2, 3]
        assert all(len(top) <= 2 for top in whole["top_logprobs"])
        *chunks, _ = (await running.post(COMPLETIONS, fields | {"stream": True})).events
        found = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
        assert [token for one in found for token in one["tokens"]] == whole["tokens"]
        assert [offset for one in found for offset in one["text_offset"]] == whole["text_offset"]

    served(body, PING)


def test_alternatives_that_are_no_characters_stay_apart() -> None:
    """Two bytes that no text can show have a name each, and the sampled one's is among them."""

    async def body(running: Bridge) -> None:
        bias = {"226": 100, "128": 90}  # two bytes of one character
        fields = {"prompt": "ping", "logprobs": 2, "logit_bias": bias, "max_tokens": 1}
        found = (await running.post(COMPLETIONS, fields)).json["choices"][0]["logprobs"]
        assert list(found["top_logprobs"][0]) == [r"bytes:\xe2", r"bytes:\x80"]
        assert found["tokens"] == [r"bytes:\xe2"]

    served(body, PING)


@pytest.mark.parametrize("stream", [False, True])
def test_offsets_count_the_text_that_was_sent(stream: bool) -> None:
    """A character of two tokens counts once, and an end token that was passed over counts nothing."""
    script = Script(replies={"ping": "naïve"})

    async def body(running: Bridge) -> None:
        fields = {"prompt": "ping", "logprobs": 0, "ignore_eos": True, "max_tokens": 7, "stop": ["end"]}
        answer = await running.post(COMPLETIONS, fields | {"stream": stream})
        choices = [event["choices"][0] for event in answer.events[:-1]] if stream else [answer.json["choices"][0]]
        logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
        text = "".join(choice["text"] for choice in choices)
        tokens = [token for one in logprobs for token in one["tokens"]]
        assert text.startswith("naïve")
        assert tokens[:7] == ["n", "a", r"bytes:\xc3", r"bytes:\xaf", "v", "e", "<|end|>"]
        assert [offset for one in logprobs for offset in one["text_offset"]] == [0, 1, 2, 2, 3, 4, 5]

    served(body, script)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_negative_limit_is_reported_as_it_was_sent(name: str) -> None:
    """Not as another number that is also wrong."""

    async def body(running: Bridge) -> None:
        answer = await running.post(CHAT, chat("ping", **{name: -1}))
        assert answer.status == 400
        assert answer.error["param"] == name
        assert answer.error["message"] == "max_tokens is -1, which must be at least 1"

    served(body)


@pytest.mark.parametrize(("stop", "text"), [("<|end|>", "pong"), ("ng<|end|>", "po")])
def test_a_special_token_ends_the_text_as_a_stop_string(stop: str, text: str) -> None:
    """Past the model's end tokens, which are special tokens, too."""

    async def body(running: Bridge) -> None:
        fields = {"prompt": "ping", "stop": stop, "ignore_eos": True, "max_tokens": 50}
        answer = (await running.post(COMPLETIONS, fields)).json
        assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == (text, "stop")
        assert answer["usage"]["completion_tokens"] == 5

    served(body, PING)


def test_the_scheduler_sees_priority_and_deadline(tmp_path: Path) -> None:
    """What the headers say is what the queue goes by."""

    async def main() -> None:
        headers = {"X-Priority": "low", "X-Timeout": "1000"}
        async with gated(tmp_path) as (running, _), running.opened("POST", CHAT, chat("x"), headers):
            await accepted(running, 1)
            (generation,) = running.server.catalog.get("").dispatcher.calls
            assert generation.request.priority is Priority.LOW
            assert generation.request.deadline_seconds is not None
            assert 900 < generation.request.deadline_seconds - generation.request.arrived_seconds <= 1000

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"stop": ["a", 1]}, "stop[1]", "invalid_type"),
        ({"logit_bias": {"900": 1}}, "logit_bias[900]", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"colour": 1}, "colour", "unknown_parameter"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "invalid_value"),
        ({"messages": []}, "messages", "invalid_type"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "invalid_value"),
        ({"model": "nobody"}, "model", "model_not_found"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    """In OpenAI's words, with its path in the body."""

    async def body(running: Bridge) -> None:
        answer = await running.post(CHAT, chat("ping") | fields)
        assert answer.status == (404 if code == "model_not_found" else 400)
        assert (answer.error["param"], answer.error["code"]) == (param, code)

    served(body)


@pytest.mark.parametrize(
    ("headers", "status", "param"),
    [
        ({"X-Priority": "urgent"}, 400, "X-Priority"),
        ({"X-Timeout": "soon"}, 400, "X-Timeout"),
        ({"X-Timeout": "nan"}, 400, "X-Timeout"),
        ({"X-Request-Id": "x" * 129}, 400, "X-Request-Id"),
        ({"X-Timeout": "0.0000001"}, 504, None),
        ({"Content-Type": "text/plain"}, 415, None),
        ({"Host": "evil.example"}, 403, None),
    ],
)
def test_headers_are_checked(headers: dict[str, str], status: int, param: str | None) -> None:
    """A header at fault is named as a field would be."""

    async def body(running: Bridge) -> None:
        answer = await running.post(CHAT, chat("ping"), headers)
        assert answer.status == status
        assert answer.error["param"] == param

    served(body)


def test_other_paths_methods_and_sizes_have_openai_errors() -> None:
    """Also what the framework refuses is in OpenAI's form."""

    async def body(running: Bridge) -> None:
        assert (await running.get("/v1/nothing")).error["code"] == "not_found"
        assert (await running.get(CHAT)).status == 405
        assert (await running.get(CHAT)).error["code"] == "method_not_allowed"
        too_large = await running.post(CHAT, chat("x" * 5000))
        assert too_large.status == 413
        assert too_large.error["type"] == "invalid_request_error"

    served(body, max_request_bytes=4096)


def test_models_are_listed() -> None:
    """Those that take requests, and each alone."""

    async def body(running: Bridge) -> None:
        (model,) = (await running.get("/v1/models")).json["data"]
        assert (model["id"], model["object"]) == ("scripted", "model")
        assert (await running.get("/v1/models/scripted")).json == model
        assert (await running.get("/v1/models/no/such")).error["code"] == "model_not_found"

    served(body)


def test_a_draining_server_says_when_to_come_again() -> None:
    """503 with Retry-After, for every call that is new."""

    async def body(running: Bridge) -> None:
        running.server.server.service.draining = True
        answer = await running.post(CHAT, chat("ping"))
        assert answer.status == 503
        assert answer.error["code"] == "draining"
        assert int(answer.headers["retry-after"]) >= 1

    served(body)


def test_a_failure_within_a_stream_is_its_last_event() -> None:
    """What came before stays; there is no mark of a good end."""

    async def body(running: Bridge) -> None:
        answer = await running.post(CHAT, chat("break", stream=True))
        assert answer.status == 200
        assert answer.text
        assert answer.events[-1]["error"]["type"] == "server_error"
        assert "[DONE]" not in answer.events

    served(body, Script(faults=[Fault(text="break", action="fail", at_output=2)]))


def test_a_deadline_that_passes_in_a_stream(tmp_path: Path) -> None:
    """X-Timeout counts from the call's arrival, and frees the row."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate):
            gate.step(3)
            answer = await running.post(CHAT, chat("x", stream=True), {"X-Timeout": "1.5"})
            assert answer.events[-1]["error"]["code"] == "deadline_passed"
            gate.free()
            await freed(running)

    asyncio.run(main())


def test_prefill_sends_comments() -> None:
    """A long prompt's stream is not silent."""

    async def body(running: Bridge) -> None:
        answer = await running.post(CHAT, chat("x" * 50, stream=True, max_tokens=1))
        assert answer.body.startswith(b"data: ")
        assert answer.body.count(b": keepalive\n\n") >= 1
        assert answer.events[-1] == "[DONE]"

    served(body, Script(prefill_tokens_per_step=8, step_seconds=0.002))


def test_a_waiting_call_sends_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing happens, too: in the queue, or when the engine starts again."""
    monkeypatch.setattr(openai_calls, "KEEPALIVE_SECONDS", 0.01)

    async def main() -> None:
        async with (
            gated(tmp_path) as (running, _),
            running.opened("POST", CHAT, chat("x", stream=True)) as connection,
        ):
            await connection.until(b": keepalive\n\n")
            await connection.until(b": keepalive\n\n")

    asyncio.run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_a_closed_connection_frees_the_row(tmp_path: Path, stream: bool) -> None:
    """Within one step of the engine, whether the answer had begun or not."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate):
            stats = running.server.server.stats
            async with running.opened("POST", CHAT, chat("x", stream=stream)) as connection:
                gate.step(4)
                if stream:
                    await connection.until(b'"content":" ')
                await until(lambda: stats.generated_tokens.total() == 3)
            await until(lambda: stats.abandoned.total() == 1)
            gate.step()
            await freed(running)
            assert stats.generated_tokens.total() <= 4

    asyncio.run(main())


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    """After --slow-reader-seconds, and its row is freed."""

    async def body(running: Bridge) -> None:
        fields = {"stream": True, "logprobs": True, "top_logprobs": 20, "max_tokens": 40_000, "ignore_eos": True}
        async with running.opened("POST", CHAT, chat("x", **fields)) as connection:
            await connection.head()
            await freed(running)
            assert not running.server.server.stats.completed

    served(body, Script(context_length=50_000), slow_reader_seconds=0.2)


def test_the_name_of_an_allowed_origin_is_answered() -> None:
    """A proxy may pass its own name on."""

    async def body(running: Bridge) -> None:
        assert (await running.get("/v1/models", {"Host": "chat.example"})).status == 200
        assert (await running.get("/v1/models", {"Host": "evil.example"})).error["code"] == "wrong_host"

    served(body, cors_origin=("https://chat.example",))


def test_pages_of_other_origins_need_the_flag() -> None:
    """With --cors-origin the browser gets its leave; without, none."""
    preflight = {
        "Origin": "http://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, authorization",
    }

    async def allowed(running: Bridge) -> None:
        answer = await running.call("OPTIONS", CHAT, None, preflight)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "http://page.example"
        answer = await running.post(CHAT, chat("x", max_tokens=1), {"Origin": "http://page.example"})
        assert answer.headers["access-control-allow-origin"] == "http://page.example"

    async def refused(running: Bridge) -> None:
        answer = await running.call("OPTIONS", CHAT, None, preflight)
        assert answer.status == 405
        assert "access-control-allow-origin" not in answer.headers

    served(allowed, cors_origin=("http://page.example",))
    served(refused)


def test_a_bug_of_ours_has_an_id(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The caller sees the id alone, the log has the rest."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(openai_calls, "_collect", broken)

    async def body(running: Bridge) -> None:
        answer = await running.post(CHAT, chat("x", max_tokens=1))
        assert answer.status == 500
        assert "secret" not in answer.error["message"]
        error_id = answer.error["message"].split("(")[1].split()[0]
        assert error_id in caplog.text

    served(body)
