"""Bodies whose shape costs more than their size: none holds the event loop, and none is answered by a bug."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.http.openai.bodies import MAX_MESSAGES
from mlx_grpc.http.openai.errors import ApiError
from mlx_grpc.http.openai.structure import MAX_CONTAINERS, MAX_STRINGS, MAX_VALUES, Values, check_structure, pieces
from tests.hostile.helpers.http import CHAT, COMPLETIONS, MIB, gap_bound_seconds, in_threads, post, victim, watched

SIZE = 4 * MIB - 200


def many(item: bytes, size: int = SIZE) -> bytes:
    """So many of them, with commas."""
    return (item + b",") * (size // (len(item) + 1) - 1) + item


def in_messages(inner: bytes) -> bytes:
    return b'{"messages":[' + inner + b"]}"


SHAPES: dict[str, tuple[str, bytes]] = {
    "empty lists": (CHAT, in_messages(many(b"[]"))),
    "empty objects": (CHAT, in_messages(many(b"{}"))),
    "objects in objects": (CHAT, in_messages(many(b'{"a":{}}'))),
    "tiny messages": (CHAT, in_messages(many(b'{"role":"user","content":""}'))),
    "tiny parts": (CHAT, b'{"messages":[{"role":"user","content":[' + many(b'{"type":"text","text":""}') + b"]}]}"),
    "nested": (CHAT, b'{"messages":' + b"[" * SIZE),
    "nested objects": (CHAT, b'{"a":' * (SIZE // 5)),
    "a huge number": (CHAT, b'{"messages":[{"role":"user","content":"x"}],"seed":' + b"9" * SIZE + b"}"),
    "a long fraction": (CHAT, b'{"messages":[{"role":"user","content":"x"}],"temperature":0.' + b"1" * SIZE + b"}"),
    "unknown fields": (CHAT, b"{" + b",".join(b'"f%d":1' % number for number in range(300_000)) + b"}"),
    "one field again and again": (CHAT, b"{" + many(b'"n":1') + b"}"),
    "stop strings": (CHAT, b'{"messages":[{"role":"user","content":"x"}],"stop":[' + many(b'"a"') + b"]}"),
    "stop ids": (CHAT, b'{"messages":[{"role":"user","content":"x"}],"stop_token_ids":[' + many(b"1") + b"]}"),
    "biases": (
        CHAT,
        b'{"messages":[{"role":"user","content":"x"}],"logit_bias":{'
        + b",".join(b'"%d":1' % number for number in range(100_000))
        + b"}}",
    ),
    "template arguments": (
        CHAT,
        b'{"messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"a":[' + many(b"[]") + b"]}}",
    ),
    "metadata": (CHAT, b'{"messages":[{"role":"user","content":"x"}],"metadata":{"a":[' + many(b"[]") + b"]}}"),
    "tools": (CHAT, b'{"messages":[{"role":"user","content":"x"}],"tools":[' + many(b"{}") + b"]}"),
    "token ids": (COMPLETIONS, b'{"prompt":[' + many(b"7") + b"]}"),
    "lists of ids": (COMPLETIONS, b'{"prompt":[' + many(b"[7]") + b"]}"),
    "prompts": (COMPLETIONS, b'{"prompt":[' + many(b'"a"') + b"]}"),
    "quotes": (CHAT, b'{"messages":[{"role":"user","content":"' + b'\\"' * (SIZE // 2) + b'"}],"n":[' + b"[]," * 9),
    "escapes": (CHAT, b'{"messages":[{"role":"user","content":"' + b"\\u00e1" * (SIZE // 6) + b'"}],"n":2}'),
    "lone surrogates": (CHAT, b'{"messages":[{"role":"user","content":"' + b"\\ud800" * (SIZE // 6) + b'"}],"n":2}'),
    "not UTF-8": (CHAT, b'{"messages":[{"role":"user","content":"' + b"\xff" * SIZE + b'"}]}'),
    "white": (CHAT, b" " * SIZE),
    "zeros": (CHAT, b"\0" * SIZE),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with victim(tmp_path_factory.mktemp("shapes"), script={"context_length": 100_000}) as running:
        yield running


@pytest.mark.parametrize("name", SHAPES)
def test_no_shape_holds_the_event_loop(server, full_size: bool, name: str) -> None:  # type: ignore[no-untyped-def]
    """4 MiB each, some at once; all are refused as what they are."""
    path, body = SHAPES[name]
    statuses: list[int] = []
    engine = server.look().engine_pid
    in_threads(*[lambda: statuses.append(post(server, body, path)[0])] * (8 if full_size else 2))
    look = server.look()
    assert set(statuses) <= ({200} if name == "a long fraction" else {400, 429})
    assert look.gap_seconds <= gap_bound_seconds(full_size), look
    assert look.engine_pid == engine


@pytest.mark.parametrize("path", ["/admin/models/load", "/admin/drain"])
def test_the_admin_port_takes_small_bodies_alone(server, path: str) -> None:  # type: ignore[no-untyped-def]
    """Whatever is in them."""
    assert post(server, b"[" * MIB, path, "admin")[0] == 413
    assert post(server, b'{"a":' * 10_000, path, "admin")[0] == 400


def test_the_pace_of_others(tmp_path: Path, full_size: bool) -> None:
    """All shapes at once, and again: health is answered in time."""
    rounds = 4 if full_size else 1
    with victim(tmp_path, script={"context_length": 100_000}) as running, watched(running) as witness:
        for _ in range(rounds):
            in_threads(*[lambda path=path, body=body: post(running, body, path) for path, body in SHAPES.values()])
        look = running.look()
        assert look.gap_seconds <= gap_bound_seconds(full_size)
    assert not witness.failed
    assert witness.longest_seconds <= (0.3 if full_size else 5.0)


# What is counted, without a server.


def test_all_that_may_be_sent_passes() -> None:
    """The most messages, with a part and all their fields each, and a text full of what is counted outside of texts."""
    part = {"type": "text", "text": '[[{,"\\"\\\\' * 20}
    turn = {"role": "user", "content": [part], "tool_call_id": "x", "name": None}
    for body in (
        {"messages": [turn] * MAX_MESSAGES},
        {"messages": [{"role": "user", "content": '[{,"\\' * 500_000}]},
        {"prompt": list(range(MAX_VALUES - 1))},
    ):
        list(check_structure(json.dumps(body).encode()))


@pytest.mark.parametrize(
    "body",
    [
        b"[" + many(b"[]", 3 * (MAX_CONTAINERS + 2)) + b"]",
        b'["\\\\",' + many(b"[]", 3 * (MAX_CONTAINERS + 2)) + b"]",
        b'["\\\\\\"",' + many(b"{}", 3 * (MAX_CONTAINERS + 2)) + b"]",
        b"[" + many(b'""', 3 * (MAX_STRINGS + 2)) + b"]",
        b"[" + many(b'"\\\\"', 5 * (MAX_STRINGS + 2)) + b"]",
        b"[" + many(b"1", 2 * (MAX_VALUES + 3)) + b"]",
    ],
    ids=["lists", "after an escaped backslash", "after an escaped quote", "texts", "texts of backslashes", "numbers"],
)
def test_one_too_many_is_found(body: bytes) -> None:
    """Also behind escapes that look like ends of texts."""
    with pytest.raises(ApiError) as caught:
        list(check_structure(body))
    assert (caught.value.status, caught.value.code) == (400, "too_many_values")


@given(
    st.recursive(
        st.text('[]{},"\\a') | st.integers(), lambda item: st.lists(item) | st.dictionaries(st.text('[",\\'), item)
    )
)
def test_pieces_are_counted_as_the_whole(value: object) -> None:
    """Wherever they are cut, and whatever looks like the end of a text."""
    text = json.dumps(value)
    values = Values()
    for piece in pieces(text.encode(), piece_bytes=3):
        values.count(piece)
    assert (values.containers, values.commas, values.quotes) == _reference(value)


def _reference(value: object) -> tuple[int, int, int]:
    """Lists and objects, commas outside of texts, and quotes of the JSON text of a value."""
    if isinstance(value, str):
        return 0, 0, 2
    if not isinstance(value, list | dict):
        return 0, 0, 0
    inner = [_reference(item) for item in (value.values() if isinstance(value, dict) else value)]
    quotes = 2 * len(value) if isinstance(value, dict) else 0
    containers, commas, texts = (sum(column) for column in zip(*inner, strict=True)) if inner else (0, 0, 0)
    return containers + 1, commas + max(0, len(value) - 1), texts + quotes
