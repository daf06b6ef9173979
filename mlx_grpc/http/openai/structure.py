"""How many values a JSON text has, counted before anything is made of it: a megabyte of `[],` costs a parser seconds.

Counting is done by a few passes in C over the bytes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlx_grpc.http.openai.errors import ApiError

SMALL_BYTES = 16 * 1024
"""So little cannot hold so many values that they matter."""
MAX_CONTAINERS = 32_768
"""Objects and lists in one body, which cost a parser the most: more than the most messages and parts have together."""
MAX_STRINGS = 65_536
"""Texts and names in one body."""
MAX_VALUES = 262_144
"""Values in one body, of which token ids are the most: a prompt of ids can be so long. A longer one goes as text."""


PIECE_BYTES = 256 * 1024
"""Counted at once: two milliseconds in the worst case, which is a text of escaped quotes."""


def check_structure(raw: bytes | bytearray) -> Iterator[None]:
    """Raises ApiError 400 for more values than any valid body has. Each step is a small piece of work."""
    if len(raw) <= SMALL_BYTES:
        return
    few = _surely_few(raw)
    yield
    if few:
        return
    values = Values()
    for piece in pieces(raw):
        values.count(piece)
        for what, number, limit in (
            ("texts", values.quotes, 2 * MAX_STRINGS),
            ("lists and objects", values.containers, MAX_CONTAINERS),
            ("values", values.commas, MAX_VALUES),
        ):
            if number > limit:
                shown = MAX_STRINGS if what == "texts" else limit
                raise ApiError(400, f"the body has more than {shown} {what}", code="too_many_values")
        yield


class Values:
    """What was counted of a JSON text: quotes that begin or end a text, and outside of texts the first characters of
    lists and objects, and commas."""

    def __init__(self) -> None:
        self.quotes = self.containers = self.commas = 0
        self._in_text = False

    def count(self, piece: bytes) -> None:
        """The next piece, as `pieces` cuts them."""
        parts = _without_escapes(piece).split(b'"')
        outside = b"".join(parts[self._in_text :: 2])
        self.quotes += len(parts) - 1
        self.containers += _containers(outside)
        self.commas += outside.count(b",")
        self._in_text ^= len(parts) % 2 == 0


def pieces(raw: bytes | bytearray, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """The text in pieces of about so many bytes. None ends between a backslash and what it escapes."""
    begin = 0
    while begin < len(raw):
        piece = bytes(raw[begin : begin + piece_bytes])
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and begin + len(piece) < len(raw):
            piece += raw[begin + len(piece) : begin + len(piece) + 1]
        yield piece
        begin += len(piece)


def _surely_few(raw: bytes | bytearray) -> bool:
    """Whether there are few even if all of them are outside of texts."""
    return (
        _containers(raw) <= MAX_CONTAINERS
        and raw.count(b",") <= MAX_VALUES
        and raw.count(b'"') <= 2 * MAX_STRINGS
    )  # fmt: skip


def _containers(raw: bytes | bytearray) -> int:
    return raw.count(b"[") + raw.count(b"{")


def _without_escapes(piece: bytes) -> bytes:
    """With no quote left but those that begin and end texts: a backslash before a quote is one that is not itself
    escaped, once all pairs of backslashes are gone."""
    if b"\\" not in piece:
        return piece
    return piece.replace(b"\\\\", b"").replace(b'\\"', b"")
