"""How a vocabulary writes bytes, so that one token's bytes can be told without its neighbours.

Two families can: byte-level BPE, which writes each byte as a character of its own alphabet, and
SentencePiece, which writes a space as U+2581 and a byte that no piece covers as `<0xNN>`. The tokenizer's
decoder says which it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's: a printable Latin-1 character is its own byte; U+0100 and on are the other bytes, in order."""
    printable = {byte for first, last in ("!~", "¡¬", "®ÿ") for byte in range(ord(first), ord(last) + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_alphabet()


@dataclass(frozen=True, slots=True)
class ByteLevelPieces:
    """Each character of a piece is a byte; added tokens stand in the vocabulary as plain text."""

    drops_first_space: bool = False

    def to_bytes(self, piece: str, added: bool) -> bytes:
        """The piece's bytes. `added`: it was added to the vocabulary after training."""
        if added or not all(char in _BYTE_OF_CHAR for char in piece):
            return piece.encode()
        return bytes(_BYTE_OF_CHAR[char] for char in piece)


@dataclass(frozen=True, slots=True)
class SentencePieces:
    """`space` stands for a space; `<0xNN>` for a byte, where the vocabulary has a byte fallback."""

    space: str
    byte_fallback: bool
    drops_first_space: bool

    def to_bytes(self, piece: str, added: bool) -> bytes:
        """The piece's bytes. `added` makes no difference here."""
        match = _BYTE_TOKEN.fullmatch(piece) if self.byte_fallback else None
        return bytes.fromhex(match[1]) if match else piece.replace(self.space, " ").encode()


Pieces = ByteLevelPieces | SentencePieces


def read_pieces(decoder: Mapping[str, Any] | None) -> Pieces | None:
    """What a decoder, as tokenizer.json describes it, says of the vocabulary; None for neither family."""
    if decoder is None:
        return None
    steps = {step["type"]: step for step in decoder.get("decoders", [decoder])}
    if "ByteLevel" in steps and steps.keys() <= {"ByteLevel", "Fuse"}:
        return ByteLevelPieces()
    if not steps.keys() <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        return None
    replace, strip, metaspace = steps.get("Replace"), steps.get("Strip"), steps.get("Metaspace")
    if (replace and replace["content"] != " ") or (strip and (strip["content"] != " " or strip["stop"])):
        return None
    space = metaspace["replacement"] if metaspace else replace["pattern"].get("String") if replace else None
    if not space:
        return None
    drops = bool(strip and strip["start"]) or bool(metaspace and metaspace["prepend_scheme"] != "never")
    return SentencePieces(space, "ByteFallback" in steps, drops)
