"""Generated requests: messages filled at random from their descriptors, and bytes that are mutations of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Option = TypeVar("Option")

TEXTS = (
    "",
    "a",
    "The capital of France",
    "🙂 Größe 東京",
    "\x00\x01",
    "{}",
    '{"a": [',
    " ",
    "<|end|>",
    "x" * 300,
    "the " * 400,
)
FLOATS = (0.0, 1.0, 0.7, -1.0, 1e-9, 1e30, -1e30, float("inf"), float("-inf"), float("nan"), 2.0, 320.0)
INTS = (0, 1, 2, 3, 5, 20, 21, 50, 319, 320, 321, 512, 513, 2**31 - 1)
PRESENCE = 0.35
"""How likely a field is set. Inputs are set more often, or most requests would end at the same check."""
MAX_REPEATED = 4
OPTIONS = ("sampling", "stop", "output", "priority", "cache")
"""Of a GenerateRequest; all of them random at once are hardly ever valid."""
MAX_TOKENS = 6
"""Most requests ask for no more, so that many of them can be run."""

_KIND = FieldDescriptor
_INTEGERS = {
    _KIND.TYPE_INT32: (-(2**31), 2**31 - 1),
    _KIND.TYPE_INT64: (-(2**63), 2**63 - 1),
    _KIND.TYPE_UINT32: (0, 2**32 - 1),
    _KIND.TYPE_UINT64: (0, 2**64 - 1),
}


class RequestMaker:
    """Draws requests from a seeded source: the same seed, the same requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def message(self, kind: type[Message]) -> Message:
        """A message with some of its fields set, to likely values, limits, and nonsense."""
        message = kind()
        self._fill(message, cast(Descriptor, message.DESCRIPTOR))
        return message

    def mutated(self, data: bytes) -> bytes:
        """The bytes with some of them changed, cut, doubled or put in."""
        mutate: Callable[[bytearray], None] = self._random.choice((self._flip, self._cut, self._double, self._insert))
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            mutate(changed)
        return bytes(changed)

    def choose(self, options: Sequence[Option], weights: Sequence[float]) -> Option:
        """One of the options, the weightier ones more often."""
        return self._random.choices(options, weights)[0]

    def happens(self, probability: float) -> bool:
        """True this often."""
        return self._random.random() < probability

    def tame(self, request: Any) -> Any:
        """A GenerateRequest that is often valid and never long: with an input, and mostly a small max_tokens."""
        if request.WhichOneof("input") is None and self._random.random() < 0.9:
            request.prompt = self._random.choice(TEXTS)
        if self._random.random() < 0.7:
            request.model = ""
        if self._random.random() < 0.7:
            kept = self._random.choice(OPTIONS)
            for name in OPTIONS:
                if name != kept:
                    request.ClearField(name)
        if self._random.random() < 0.95:
            request.stop.max_tokens = self._random.randint(1, MAX_TOKENS)
        return request

    def _fill(self, message: Message, descriptor: Descriptor) -> None:
        chosen = {oneof.name: self._random.choice(oneof.fields).name for oneof in descriptor.oneofs}
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and chosen[oneof.name] != field.name:
                continue
            if self._random.random() < PRESENCE:
                self._set(message, field)

    def _set(self, message: Message, field: FieldDescriptor) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(getattr(message, field.name), field.message_type)
        elif field.is_repeated:
            target = getattr(message, field.name)
            for _ in range(self._random.randint(0, MAX_REPEATED)):
                if field.message_type is not None:
                    self._fill(target.add(), field.message_type)
                else:
                    target.append(self._value(field))
        elif field.message_type is not None:
            target = getattr(message, field.name)
            target.SetInParent()
            self._fill(target, field.message_type)
        else:
            setattr(message, field.name, self._value(field))

    def _fill_map(self, target: Any, entry: Descriptor) -> None:
        for _ in range(self._random.randint(0, MAX_REPEATED)):
            target[self._value(entry.fields_by_name["key"])] = self._value(entry.fields_by_name["value"])

    def _value(self, field: FieldDescriptor) -> Any:
        if field.type in _INTEGERS:
            low, high = _INTEGERS[field.type]
            number = self._random.choice((*INTS, low, high, self._random.randint(low, high)))
            return min(max(number, low), high)
        if field.enum_type is not None:
            return self._random.choice((*(value.number for value in field.enum_type.values), 99))
        if field.type in (_KIND.TYPE_FLOAT, _KIND.TYPE_DOUBLE):
            return self._random.choice((*FLOATS, self._random.uniform(-2, 2)))
        if field.type == _KIND.TYPE_BOOL:
            return self._random.random() < 0.5
        text = self._random.choice(TEXTS)
        return text.encode() if field.type == _KIND.TYPE_BYTES else text

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)

    def _cut(self, data: bytearray) -> None:
        del data[self._random.randint(0, len(data)) :]

    def _double(self, data: bytearray) -> None:
        start = self._random.randint(0, len(data))
        data[start:start] = data[start : start + self._random.randint(0, 20)]

    def _insert(self, data: bytearray) -> None:
        at = self._random.randint(0, len(data))
        data[at:at] = self._random.randbytes(self._random.randint(1, 8))
