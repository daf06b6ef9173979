"""How many values a JSON text has, counted before anything is made of it: a megabyte of `[],` costs a parser seconds.

Counting is done by a few passes in C over the bytes. Pure.
"""

from __future__ import annotations

from mlx_grpc.http.openai.errors import ApiError

SMALL_BYTES = 16 * 1024
"""So little cannot hold so many values that they matter."""
MAX_CONTAINERS = 32_768
"""Objects and lists in one body, which cost a parser the most: more than the most messages and parts have together."""
MAX_STRINGS = 131_072
"""Texts and names in one body."""
MAX_VALUES = 262_144
"""Values in one body, of which token ids are the most: a prompt of ids can be so long. A longer one goes as text."""


def check_structure(raw: bytes | bytearray) -> None:
    """Raises ApiError 400 for more values than any valid body has."""
    if len(raw) <= SMALL_BYTES or _surely_few(raw):
        return
    bare = _without_escapes(raw)
    if bare.count(b'"') > 2 * MAX_STRINGS:
        raise _too_many("texts", MAX_STRINGS)
    outside = b"".join(bare.split(b'"')[::2])
    if _containers(outside) > MAX_CONTAINERS:
        raise _too_many("lists and objects", MAX_CONTAINERS)
    if outside.count(b",") > MAX_VALUES:
        raise _too_many("values", MAX_VALUES)


def _surely_few(raw: bytes | bytearray) -> bool:
    """Whether there are few even if all of them are outside of texts."""
    return (
        _containers(raw) <= MAX_CONTAINERS
        and raw.count(b",") <= MAX_VALUES
        and raw.count(b'"') <= 2 * MAX_STRINGS
    )  # fmt: skip


def _containers(raw: bytes | bytearray) -> int:
    return raw.count(b"[") + raw.count(b"{")


def _without_escapes(raw: bytes | bytearray) -> bytes | bytearray:
    """With no quote left but those that begin and end texts: a backslash before a quote is one that is not itself
    escaped, once all pairs of backslashes are gone."""
    if b"\\" not in raw:
        return raw
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"")


def _too_many(what: str, limit: int) -> ApiError:
    return ApiError(400, f"the body has more than {limit} {what}", code="too_many_values")
