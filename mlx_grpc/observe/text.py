"""Text that others wrote, made fit to be logged or shown: paths, names, models' words, what servers and libraries say.

Control characters move a terminal's cursor and set its title, line ends forge lines of a log, and characters that turn
the direction of text show it as what it is not. Pure; the one place for it.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_KEPT = "\n\t\u200c\u200d"  # the joiners make emoji and several scripts
_BREAKS = "\u2028\u2029"
_UNSEEN = ("Cc", "Cf")  # control and formatting characters


def escaped(text: str) -> str:
    """One line in which every character that does not print is written out, as Python has it: `\\x1b`, `\\u202e`.

    What is escaped already stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _written_out(char) for char in text)


def printable(text: str) -> str:
    """A model's words for a terminal: line ends, tabs and joiners stay, other control and formatting characters go.

    A half of a surrogate pair, which no terminal can be sent, becomes U+FFFD.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def shortened(text: str, most_bytes: int) -> str:
    """At most about so many bytes of its beginning, and how many characters are left out."""
    if len(text) * 4 <= most_bytes or len(encoded := text.encode("utf-8", "surrogatepass")) <= most_bytes:
        return text
    beginning = encoded[:most_bytes].decode("utf-8", "ignore")
    return f"{beginning}… ({len(text) - len(beginning)} characters more)"


def without_middle(text: str, most_bytes: int, mark: str = "") -> str:
    """At most about so many bytes: a quarter from its beginning, the rest from its end, and a line between them that
    begins with `mark`."""
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= most_bytes:
        return text
    beginning = encoded[: most_bytes // 4].decode("utf-8", "ignore")
    end = encoded[-(most_bytes - most_bytes // 4) :].decode("utf-8", "ignore")
    return f"{beginning}\n{mark}… ({len(text) - len(beginning) - len(end)} characters left out) …{end}"


def json_line(value: Any) -> str:
    """JSON on one line, in which every character that does not print is written out: the same value for a parser."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _written_out(char: str) -> str:
    number = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _shown(char: str) -> str:
    if char in _KEPT or char.isprintable():
        return char
    if char in _BREAKS:
        return "\n"
    category = unicodedata.category(char)
    return "\ufffd" if category == "Cs" else "" if category in _UNSEEN else char
