"""Text that others wrote is fit to be logged and shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.observe.text import escaped, json_line, printable, shortened, without_middle

EVERYTHING = st.text(st.characters(exclude_categories=[]))  # halves of surrogate pairs as well
HOSTILE = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\ufeff\u00ad",
    "\ud800",
    "\udcff",
    "\U000e0041",
]


@given(EVERYTHING)
def test_escaped_text_is_one_printable_line(text: str) -> None:
    """It can be encoded, is the same when escaped again, and ordinary characters stay."""
    shown = escaped(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert escaped(shown) == shown
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("char", HOSTILE, ids=ascii)
def test_hostile_characters_are_written_out(char: str) -> None:
    """As Python writes them, so that people can look them up; none is left, and none is dropped."""
    assert escaped(f"a{char}b") == f"a{ascii(char)[1:-1]}b"


@pytest.mark.parametrize("char", [char for char in HOSTILE if char not in "\n\t"], ids=ascii)
def test_no_hostile_character_of_a_model_reaches_a_terminal(char: str) -> None:
    """Whatever becomes of it, the words around stay and can be encoded."""
    shown = printable(f"a{char}b")
    assert char not in shown
    assert (shown[0], shown[-1]) == ("a", "b")
    assert shown.encode("utf-8")


@given(EVERYTHING)
def test_json_lines_mean_the_same(text: str) -> None:
    """And are one printable line."""
    line = json_line({"text": text, text: [text]})
    assert line.isprintable()
    assert line.encode("utf-8")
    assert json.loads(line) == {"text": text, text: [text]}


def test_json_lines_keep_letters() -> None:
    """Only what does not print is written out."""
    assert json_line(["é漢", "\x9b\u202e\U000e0041"]) == '["é漢", "\\u009b\\u202e\\udb40\\udc41"]'


@given(EVERYTHING, st.integers(10, 100))
def test_shortened_text_is_short(text: str, most_bytes: int) -> None:
    """It begins alike, and says how much is missing."""
    short = shortened(text, most_bytes)
    assert len(short.encode("utf-8", "surrogatepass")) <= most_bytes + 40
    if short != text:
        kept, _, rest = short.rpartition("… (")
        assert text.startswith(kept)
        assert int(rest.split()[0]) == len(text) - len(kept)


@given(st.lists(st.text("ab", max_size=30), max_size=30), st.integers(20, 200))
def test_without_its_middle_text_keeps_its_end(lines: list[str], most_bytes: int) -> None:
    """The end of a traceback says what happened."""
    text = "\n".join(f"| {line}" for line in lines)
    short = without_middle(text, most_bytes, "| ")
    assert len(short) <= most_bytes + 60
    assert short[-10:] == text[-10:]
    assert all(line.startswith("|") for line in short.split("\n") if line)
