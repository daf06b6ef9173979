"""Counts the fields of a message before anything is built from it.

Four MiB can hold two million empty sub-messages: parsing and walking them takes seconds and a hundred times their
memory. The scan goes through protobuf's wire format without building anything, follows the schema into sub-messages,
and stops at a limit. Runs of numbers are one step, packed or not: a prompt of token ids is no more than its bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from mlx_grpc.errors import InvalidField, UnsupportedField

MAX_FIELDS = 65_536
"""4,096 chat messages of seven parts have about as many: each string, sub-message and single number counts."""
_RUN = 1024
"""Numbers that one step skips; bounded, since `re` keeps something for each of them."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_WIRE_TYPES: Mapping[int, int] = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64, FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64, FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32, FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _BYTES, FieldDescriptor.TYPE_BYTES: _BYTES, FieldDescriptor.TYPE_MESSAGE: _BYTES,
}  # fmt: skip
"""Of all other types: _VARINT."""
_VALUES = {_VARINT: rb"[\x80-\xff]{0,9}[\x00-\x7f]", _FIXED64: rb"[\x00-\xff]{8}", _FIXED32: rb"[\x00-\xff]{4}"}


class TooManyFields(InvalidField):
    """The scan reached its limit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the scan has to know of a message type, by the tags (number and wire type) that its fields begin with."""

    names: Mapping[int, str]
    below: dict[int, Plan] = field(default_factory=dict)
    runs: dict[int, re.Pattern[bytes]] = field(default_factory=dict)


@functools.cache
def plan_of(descriptor: Descriptor) -> Plan:
    """The plan of a message type and all below it; made once."""
    plan = Plan({one.number: one.name for one in descriptor.fields})
    for one in descriptor.fields:
        wire_type = _WIRE_TYPES.get(one.type, _VARINT)
        tag = one.number << 3 | wire_type
        if one.message_type is not None:
            plan.below[tag] = plan_of(one.message_type)
        elif one.is_repeated and wire_type in _VALUES:
            value = re.escape(_varint(tag)) + _VALUES[wire_type]
            plan.runs[tag] = re.compile(rb"(?:%b){1,%d}+" % (value, _RUN))
    return plan


def count_fields(data: bytes, plan: Plan, at_most: int) -> int:
    """How many fields there are, nested ones included: a run of up to 1,024 numbers counts one.

    Raises TooManyFields, with the field where it stopped; InvalidField for bytes that protobuf would not parse;
    UnsupportedField for groups, which proto3 does not have. Stops at the first of these.
    """
    position, end, count = 0, len(data), 0
    above: list[tuple[int, Plan, int]] = []  # where the outer message ends, its plan, and the tag that led here
    try:
        while True:
            while position >= end:
                if position > end:
                    raise _broken()
                if not above:
                    return count
                end, plan, _ = above.pop()
            start = position
            tag = data[position]
            position += 1
            if tag >= 0x80:
                tag, position = _read_varint(data, start, end)
            count += 1
            if count > at_most:
                raise TooManyFields(f"the message has more than {at_most} fields", field=_path(above, plan, tag))
            wire_type = tag & 7
            if wire_type == _BYTES:
                length = data[position]
                position += 1
                if length >= 0x80:
                    length, position = _read_varint(data, position - 1, end)
                if (inner := plan.below.get(tag)) is not None:
                    if position + length > end:
                        raise _broken()
                    above.append((end, plan, tag))
                    end, plan = position + length, inner
                else:
                    position += length
            elif (run := plan.runs.get(tag)) is not None and (found := run.match(data, start, end)):
                position = found.end()
            elif wire_type == _VARINT:
                _, position = _read_varint(data, position, end)
            elif wire_type in _SIZES:
                position += _SIZES[wire_type]
            else:
                path = _path(above, plan, tag)
                raise UnsupportedField(f"this server does not support {path}, a group", field=path)
    except IndexError:  # past the last byte
        raise _broken() from None


def _read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = 0
    for count in range(10):
        byte = data[position + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if position + count >= end:
                break
            return value, position + count + 1
    raise _broken()


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _broken() -> InvalidField:
    return InvalidField("the bytes are not a message of this type", field="request")


def _path(above: list[tuple[int, Plan, int]], plan: Plan, tag: int) -> str:
    """The field's path, without positions in lists."""
    tags = [(outer, outer_tag) for _, outer, outer_tag in above] + [(plan, tag)]
    return ".".join(known.names.get(number >> 3, f"#{number >> 3}") for known, number in tags)
