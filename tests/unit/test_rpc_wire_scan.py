"""The scan of a message's bytes: what it counts, what it lets pass, and that no bytes surprise it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.errors import InvalidField, UnsupportedField
from mlx_grpc.rpc.wire_scan import MAX_FIELDS, TooManyFields, count_fields, plan_of
from mlx_grpc.v1 import chat_pb2, generation_pb2, tokenizer_service_pb2
from tests.helpers.proofs.requests import RequestMaker

Request = generation_pb2.GenerateRequest
PLAN = plan_of(Request.DESCRIPTOR)
KINDS: list[type[Message]] = [
    Request, tokenizer_service_pb2.TokenizeRequest, tokenizer_service_pb2.DetokenizeRequest,
    generation_pb2.Sampling, generation_pb2.Stop, chat_pb2.Chat,
]  # fmt: skip
CONTEXT_TOKENS = 1_000_000


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def inside(field: int, data: bytes) -> bytes:
    """A field with a length."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def chat(messages: int, parts: int) -> Request:
    part = chat_pb2.ContentPart(text="word")
    one = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part] * parts)
    return Request(chat=chat_pb2.Chat(messages=[one] * messages))


@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_messages_pass(seed: int, kind: type[Message]) -> None:
    """Whatever protobuf itself has written is counted without complaint."""
    message = RequestMaker(seed).message(kind)
    descriptor: Any = kind.DESCRIPTOR
    assert count_fields(message.SerializeToString(), plan_of(descriptor), MAX_FIELDS) >= len(message.ListFields())


def seems_broken(data: bytes) -> bool:
    """Whether the scan refuses these bytes as malformed. Any other exception passes through and fails the test."""
    try:
        count_fields(data, PLAN, MAX_FIELDS)
    except UnsupportedField:
        return False
    except InvalidField as error:
        return error.field == "request"
    return False


@given(st.binary(max_size=300))
def test_any_bytes_are_counted_or_refused(data: bytes) -> None:
    """Nothing is raised but a refusal."""
    seems_broken(data)


@given(st.integers(0, 2**32))
def test_what_the_scan_calls_broken_is_no_message_to_protobuf_either(seed: int) -> None:
    """Of mutated messages, many of which are neither."""
    maker = RequestMaker(seed)
    data = maker.mutated(maker.message(Request).SerializeToString())
    if seems_broken(data):
        with pytest.raises((DecodeError, UnicodeDecodeError)):
            Request.FromString(data)


@given(st.integers(0, 50), st.integers(0, 5))
def test_what_counts(messages: int, parts: int) -> None:
    """Each message, role, part and text, and the chat."""
    request = chat(messages, parts)
    assert count_fields(request.SerializeToString(), PLAN, MAX_FIELDS) == 1 + messages * (2 + 2 * parts)


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_whole_context_of_token_ids_is_few_fields(is_packed: bool) -> None:
    """Packed or not."""
    ids = [0x80, 0x4000, 127] * (CONTEXT_TOKENS // 3)
    if is_packed:
        data = Request(token_ids=generation_pb2.TokenIds(ids=ids)).SerializeToString()
    else:
        data = inside(5, b"".join(b"\x08" + varint(one) for one in ids))
        assert Request.FromString(data).token_ids.ids == ids
    assert count_fields(data, PLAN, MAX_FIELDS) < 2000


def test_the_largest_requests_pass() -> None:
    """4,096 messages of several parts; every token of a bias; both far past what other checks let through."""
    for request in (
        chat(4096, 6),
        Request(sampling=generation_pb2.Sampling(logit_bias=dict.fromkeys(range(16 * 1024), 1.0))),
    ):
        count_fields(request.SerializeToString(), PLAN, MAX_FIELDS)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (inside(4, inside(1, b"") * 2_000_000), "chat.messages"),
        (inside(4, inside(1, inside(2, b"") * 2_000_000)), "chat.messages.content"),
        (inside(11, inside(3, b"") * 2_000_000), "stop.stop_strings"),
        (inside(10, inside(9, b"") * 2_000_000), "sampling.logit_bias"),
        (inside(10, b"\x08\x00" * 100_000), "sampling.temperature"),
        (b"\xf8\x3f\x00" * 100_000, "#1023"),
        (inside(4, inside(1, b"")) * 100_000, "chat"),
    ],
    ids=["messages", "parts", "strings", "map", "one-field-again", "unknown", "merged"],
)
def test_too_many_fields_are_refused_by_name(data: bytes, field: str) -> None:
    """Wherever they are."""
    with pytest.raises(TooManyFields) as caught:
        count_fields(data, PLAN, MAX_FIELDS)
    assert caught.value.field == field


def test_the_scan_stops_at_its_limit() -> None:
    """What comes after it is not looked at: it need not even be a message."""
    with pytest.raises(TooManyFields):
        count_fields(inside(4, b"") * 11 + b"\xff\xff", PLAN, 10)


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x1a\x05abc", inside(4, b"\x0a\x05"), b"\xff" * 11, b"\x1a" + b"\xff" * 10, b"\x6a", b"\x55\x00"],
)
def test_what_is_cut_short_is_no_message(data: bytes) -> None:
    """Varints, lengths and sub-messages past the end."""
    with pytest.raises(InvalidField) as caught:
        count_fields(data, PLAN, MAX_FIELDS)
    assert caught.value.field == "request"


def test_groups_are_refused() -> None:
    """proto3 has none; they would be fields that nobody knows, and could hold anything."""
    with pytest.raises(UnsupportedField) as caught:
        count_fields(inside(10, b"\xa3\x06" + b"\xa4\x06"), PLAN, MAX_FIELDS)
    assert caught.value.field == "sampling.#100"
