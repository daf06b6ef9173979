"""Stop strings in a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.errors import InvalidField
from mlx_grpc.service.generation.stops import StopStrings
from mlx_grpc.service.intake.validate import MAX_STOP_STRING_CHARS, MAX_STOP_STRINGS, check_stop_strings

_ALPHABET = "ab"
_STOPS = st.lists(st.text(_ALPHABET, min_size=1, max_size=5), max_size=4)


def _search_naively(text: str, stops: list[str]) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            found = max(complete, key=len)
            return text[: end - len(found)], found
    return text, None


def _held_naively(text: str, stops: list[str]) -> int:
    return max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)


@given(pieces=st.lists(st.text(_ALPHABET, max_size=6), max_size=8), stops=_STOPS)
def test_pieces_do_not_change_the_result(pieces: list[str], stops: list[str]) -> None:
    """However the text is cut, the search says what a search of the whole says."""
    search, shown, found = StopStrings(stops), "", None
    for piece in pieces:
        safe, found = search.feed(piece)
        shown += safe
        if found is not None:
            break
    if found is None:
        shown += search.flush()
    assert (shown, found) == _search_naively("".join(pieces), stops)


@given(pieces=st.lists(st.text(_ALPHABET, max_size=6), max_size=8), stops=_STOPS)
def test_holds_back_no_more_than_it_must(pieces: list[str], stops: list[str]) -> None:
    """What is held is the longest end of the text that begins a stop string, and all before it is out."""
    search, shown, text = StopStrings(stops), "", ""
    for piece in pieces:
        safe, found = search.feed(piece)
        if found is not None:
            return
        shown += safe
        text += piece
        assert search.held_chars == _held_naively(text, stops)
        assert shown == text[: len(text) - search.held_chars]


_SPECIALS = ("<a>", "<", "b<")
_ITEMS = st.lists(st.sampled_from(["a", "b", "<", ">", *((text,) for text in _SPECIALS)]), max_size=10)


def _search_items(items: list[str | tuple[str]], stops: list[str]) -> tuple[str, str | None]:
    """The text before the stop string that is complete first and begins earliest, and that. An item in a tuple is a
    special token: no text, but whole in a stop string where a tokenizer would see it; nothing where none has it."""
    items = [item for item in items if isinstance(item, str) or any(item[0] in stop for stop in stops)]

    def whole(stop: str) -> list[str | tuple[str]]:
        found: list[str | tuple[str]] = []
        while stop:
            special = max((text for text in _SPECIALS if stop.startswith(text)), key=len, default="")
            found.append((special,) if special else stop[0])
            stop = stop[len(special) or 1 :]
        return found

    def read(some: list[str | tuple[str]]) -> str:
        return "".join(item for item in some if isinstance(item, str))

    for end in range(1, len(items) + 1):
        matches = [
            (start, stop)
            for start in range(end)
            for stop in stops
            if items[start:end] == whole(stop)
            or (read(items[start:end]) == stop and isinstance(items[start], str) and isinstance(items[end - 1], str))
        ]
        if matches:
            start, stop = min(matches)
            return read(items[:start]), stop
    return read(items), None


@given(
    items=_ITEMS,
    stops=st.lists(st.text("ab<>", min_size=1, max_size=5), max_size=4),
    cuts=st.lists(st.integers(1, 4), min_size=10, max_size=10),
)
def test_special_tokens_are_found_whole(items: list[str | tuple[str]], stops: list[str], cuts: list[int]) -> None:
    """A special token counts as its whole text or as nothing, however the stream is cut."""
    search, shown, found = StopStrings(stops, _SPECIALS), "", None
    stream = [search.mark(item[0]) if isinstance(item, tuple) else item for item in items]
    while stream and found is None:
        size = cuts.pop()
        safe, found = search.feed("".join(stream[:size]))
        shown += search.readable(safe)
        stream = stream[size:]
    if found is None:
        shown += search.readable(search.flush())
    assert (shown, found) == _search_items(items, stops)


def test_special_tokens_that_no_stop_string_has_are_nothing() -> None:
    """They leave no mark, and hold nothing back."""
    search = StopStrings(["<|end|>"], ["<|start|>", "<|end|>"])
    assert search.mark("<|start|>") == ""
    assert len(search.mark("<|end|>")) == 1


def test_special_token_spelled_in_text_is_found() -> None:
    """A model may write its mark with ordinary tokens."""
    assert StopStrings(["<|end|>"], ["<|end|>"]).feed("so <|end|> it") == ("so ", "<|end|>")


def test_longest_of_those_that_end_together_wins() -> None:
    """Two are complete at the same character: the longer is named, and nothing of it is shown."""
    assert StopStrings(["d", "bcd"]).feed("abcdef") == ("a", "bcd")


def test_first_complete_wins_over_the_one_that_began_earlier() -> None:
    """A short stop string inside a longer one ends the text before the longer could be complete."""
    assert StopStrings(["abcde", "cd"]).feed("abcde") == ("ab", "cd")


def test_text_without_stop_strings_passes() -> None:
    """With none to look for, nothing is held."""
    assert StopStrings([]).feed("anything") == ("anything", None)


def test_flush_gives_what_was_held() -> None:
    """At the end the beginning of a stop string was just text."""
    search = StopStrings(["<end>"])
    assert search.feed("so <en") == ("so ", None)
    assert search.flush() == "<en"


@pytest.mark.parametrize(
    ("stops", "field"),
    [
        (["x"] * (MAX_STOP_STRINGS + 1), "stop.stop_strings"),
        (["x", ""], "stop.stop_strings[1]"),
        (["x" * (MAX_STOP_STRING_CHARS + 1)], "stop.stop_strings[0]"),
    ],
)
def test_limits_are_named(stops: list[str], field: str) -> None:
    """Too many, an empty one and one too long are refused with the field's path."""
    with pytest.raises(InvalidField) as caught:
        check_stop_strings(stops)
    assert caught.value.field == field
