"""Thousands of bad bodies and headers, made from the description that the port serves: only documented answers come.

300 in `make test`, 5,000 in `make prove`. The engine is a child process, and must be the same one at the end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlx_grpc.http.openai.description import describe
from mlx_grpc.testing import Script
from tests.helpers.openai import CHAT, COMPLETIONS, Answer, Bridge, bridge, chat

DESCRIPTION = describe()
SCHEMAS = DESCRIPTION["components"]["schemas"]
MAX_REQUEST_BYTES = 16 * 1024
EXAMPLES, FULL_EXAMPLES = 300, 5000

TEXT = st.text(max_size=12) | st.sampled_from(["", "user", "text", "image_url", "scripted", "\x00", "💥", "9" * 40])
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2**63, 2**64, 10**60, 1e308, -0.0])
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def valid(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, as far as their types go; now and then junk in their place."""
    return st.one_of(_valid(schema), _valid(schema), _valid(schema), JUNK)


def _valid(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return st.deferred(lambda: _valid(SCHEMAS[schema["$ref"].rpartition("/")[2]]))
    if "anyOf" in schema:
        return st.one_of([_valid(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    match schema.get("type"):
        case "string":
            return TEXT
        case "integer":
            return st.integers(-2, 30) | st.integers()
        case "number":
            return st.floats(0, 2) | NUMBERS
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(valid(schema["items"]), min_size=0, max_size=4)
        case "object" if "properties" in schema:
            return _objects(schema)
        case "object":
            return st.dictionaries(TEXT | st.integers(0, 600).map(str), JUNK, max_size=4)
    return st.none()


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The required fields mostly there, a few of the others, and now and then one that nobody knows."""
    known = {name: valid(one) for name, one in schema["properties"].items()}
    required = {name: known[name] for name in schema.get("required", ())}
    some = st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True)
    others = some.flatmap(lambda names: st.fixed_dictionaries({name: known[name] for name in names}))
    strangers: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.just({}) | st.dictionaries(TEXT, JUNK, max_size=1)
    return st.builds(
        lambda *parts: {k: v for part in parts for k, v in part.items()}, strangers, others, _most(required)
    )


def _most(required: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    whole = st.fixed_dictionaries(required)
    return st.one_of(whole, whole, whole, st.fixed_dictionaries({}, optional=required))


def _raw(value: Any) -> bytes:
    return json.dumps(value).encode()


BROKEN = st.one_of(
    st.binary(max_size=64),
    st.integers(1, 6000).map(lambda depth: b"[" * depth),
    st.integers(1, 2000).map(lambda depth: b'{"messages":' * depth),
    st.integers(1, 20_000).map(lambda size: b'{"prompt":"' + b"x" * size + b'"}'),
    st.integers(1, 1200).map(lambda count: _raw({str(number): 1 for number in range(count)})),
    st.integers(1, 1200).map(lambda count: _raw(chat("x", logit_bias={str(number): 1 for number in range(count)}))),
    st.integers(1, 700).map(lambda count: _raw({"messages": [{"role": "user"}] * count})),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-priority": st.sampled_from(["high", "low", "HIGH", "", "urgent"]),
        "x-timeout": st.sampled_from(["1", "30", "0", "-1", "nan", "inf", "1e99", "1_0", "x"]),
        "x-request-id": st.sampled_from(["mine", "é", "x" * 300]),
        "content-type": st.sampled_from(["application/json", "application/json; charset=utf-8", "text/plain"]),
        "origin": st.just("http://evil.example"),
    },
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Method, path as the description has it, body, headers."""
    path = draw(st.sampled_from([CHAT, CHAT, CHAT, COMPLETIONS, COMPLETIONS, "/v1/models", "/v1/models/{model}"]))
    if "get" in DESCRIPTION["paths"][path]:
        return "get", path, None, draw(HEADERS)
    schema = DESCRIPTION["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    good = _valid(schema).map(_raw)
    body = draw(st.one_of(good, good, good, JUNK.map(_raw), BROKEN))
    return "post", path, body, draw(HEADERS)


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """One event loop for all the examples of a test, and for its server."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.prove
def test_only_documented_answers(loop: asyncio.Runner, full_size: bool) -> None:
    """Each status is one that the description has for its call, never 500, and each error has OpenAI's form."""
    script = Script(context_length=96)
    context = bridge(script, engine="process", max_request_bytes=MAX_REQUEST_BYTES, default_max_tokens=4)
    running = loop.run(context.__aenter__())
    statuses: set[int] = set()

    @settings(
        max_examples=FULL_EXAMPLES if full_size else EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(requests())
    def attack(request: tuple[str, str, bytes | None, dict[str, str]]) -> None:
        method, path, body, headers = request
        answer = loop.run(running.call(method.upper(), path.format(model="nobody/x"), body, headers))
        statuses.add(answer.status)
        assert str(answer.status) in DESCRIPTION["paths"][path][method]["responses"]
        assert answer.status != 500
        _check_form(answer)

    try:
        engine_pid = running.server.engine_pid
        attack()
        assert {200, 400, 404} <= statuses
        assert running.server.engine_pid == engine_pid
        assert not running.server.server.stats.restarts
        loop.run(_still_good(running))
    finally:
        loop.run(context.__aexit__(None, None, None))


def _check_form(answer: Answer) -> None:
    if answer.status != 200:
        assert isinstance(answer.error["message"], str)
        assert isinstance(answer.error["code"], str)
    elif answer.headers["content-type"].startswith("text/event-stream"):
        last = answer.events[-1]
        assert last == "[DONE]" or isinstance(last["error"]["message"], str)
    else:
        assert answer.json["object"]


async def _still_good(running: Bridge) -> None:
    answer = await running.post(CHAT, chat("x", max_tokens=2))
    assert answer.status == 200
    assert running.server.active_rows == 0


def test_the_description_is_served() -> None:
    """The same that the fuzzing goes by."""

    async def main() -> None:
        async with bridge() as running:
            assert (await running.get("/openapi.json")).json == DESCRIPTION

    asyncio.run(main())
