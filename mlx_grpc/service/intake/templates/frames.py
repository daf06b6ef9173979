"""What the server and the process that runs a template say to each other: a JSON object and texts, behind their length.

Texts follow the object as they are. As strings in JSON a text of four million control characters would hold the
interpreter for a tenth of a second. Both ends import this: nothing but the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

HEADER_BYTES = 4
MAX_RENDERED_CHARS = 4 * 1024 * 1024
"""Of a rendered chat. Longer ones do not leave the process."""
MAX_FRAME_BYTES = 4 * MAX_RENDERED_CHARS + 8 * 1024 * 1024
"""A character takes at most 4 bytes."""
_LENGTHS = "text_bytes"

Fields = dict[str, Any]


class Message(NamedTuple):
    """One message."""

    fields: Fields
    texts: list[str]


class BadFrame(ValueError):
    """Bytes that are not a message."""


def pack(fields: Fields, texts: Sequence[str] = ()) -> list[bytes]:
    """The message as the parts of a frame, which follow one another: large texts are not copied once more. Halves of
    surrogate pairs, which JSON can carry, pass. Raises BadFrame for one that is too long."""
    bodies = [text.encode("utf-8", "surrogatepass") for text in texts]
    head = json.dumps({**fields, _LENGTHS: list(map(len, bodies))}, separators=(",", ":")).encode()
    count = HEADER_BYTES + len(head) + sum(map(len, bodies))
    if count > MAX_FRAME_BYTES:
        raise BadFrame(f"a message of {count} bytes, of at most {MAX_FRAME_BYTES}")
    lengths = count.to_bytes(HEADER_BYTES, "big") + len(head).to_bytes(HEADER_BYTES, "big")
    return [lengths + head, *bodies]


def body_bytes(header: bytes | bytearray) -> int:
    """How many bytes follow this header. Raises BadFrame for more than a message may have."""
    count = int.from_bytes(header, "big")
    if count > MAX_FRAME_BYTES:
        raise BadFrame(f"a message of {count} bytes, of at most {MAX_FRAME_BYTES}")
    return count


def unpack(body: bytes | bytearray) -> Message:
    """The message of a frame, without its header. Raises BadFrame for all else."""
    view = memoryview(body)
    place = HEADER_BYTES + int.from_bytes(view[:HEADER_BYTES], "big")
    try:
        fields = json.loads(bytes(view[HEADER_BYTES:place]))
        lengths = fields.pop(_LENGTHS)
        texts = []
        for length in lengths:
            if type(length) is not int or not 0 <= length <= len(view) - place:
                raise ValueError("a text that is not there")
            texts.append(str(view[place : place + length], "utf-8", "surrogatepass"))
            place += length
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise BadFrame(f"not a message: {str(error)[:100]}") from error
    if not isinstance(fields, dict):
        raise BadFrame("not a message: it is not an object")
    return Message(fields, texts)
