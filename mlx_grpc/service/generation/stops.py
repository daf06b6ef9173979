"""Stop strings, found while text streams past, wherever the borders of its pieces lie.

The search is an Aho-Corasick automaton over all stop strings: one step a character, however many there are.
Its state is the longest end of the text that begins some stop string, so what must be held back is exactly as
long as the state is deep, and everything before it may go out.

A special token has no text for the reader, but it may be what a stop string is about. Where its text is in a stop
string, the stream holds one character in its place, a mark, and the automaton also has the stop string with the mark in
it. So such a token is found whole or not at all: `<|` does not end a text at `<|end|>`. Two states follow the stream,
one past the marks, as the reader sees it, and one with them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from mlx_grpc.service.intake.validate import check_stop_strings

_MARKS = tuple(map(chr, range(0xD800, 0xE000)))
"""Halves of surrogate pairs: no text and no stop string has them."""
_ANY_MARK = re.compile(f"[{_MARKS[0]}-{_MARKS[-1]}]")


class StopStrings:
    """One text's search for its stop strings.

    The match that is complete first wins; among those complete at the same character, the longest. The result
    does not depend on how the text was cut into pieces. Raises InvalidField as `check_stop_strings` does.
    """

    def __init__(self, stops: Sequence[str], special_texts: Iterable[str] = ()) -> None:
        check_stop_strings(stops)
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]
        self._depth = [0]
        self._found: list[tuple[str, int] | None] = [None]
        self._marks = _marks_for(stops, special_texts)
        self._mark_chars = frozenset(self._marks.values())
        for stop in stops:
            self._add(stop, stop)
            self._add(_with_marks(stop, self._marks), stop)
        self._link()
        self._as_read = self._with_marks = 0
        self._held = ""

    @property
    def held_chars(self) -> int:
        """How many characters are held back now, marks included."""
        return len(self._held)

    def mark(self, special_text: str) -> str:
        """What stands for a special token in the stream: one character, or "" where no stop string has its text."""
        return self._marks.get(special_text, "")

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that can be shown now, with its marks, and the stop string that was found, or None.

        After a match nothing more may be fed: the text ended where the stop string begins.
        """
        if len(self._next) == 1:
            return text, None
        seen = self._held + text
        for end, char in enumerate(text, start=len(self._held) + 1):
            self._follow(char)
            if self._found[self._as_read] or self._found[self._with_marks]:
                start, found = self._match(seen, end)
                self._held = ""
                return seen[:start], found
        held_from = min(
            self._back(seen, len(seen), self._depth[self._as_read]), len(seen) - self._depth[self._with_marks]
        )
        self._held = seen[held_from:]
        return seen[:held_from], None

    def flush(self) -> str:
        """The text has ended: what was held back is no stop string after all."""
        held, self._held = self._held, ""
        self._as_read = self._with_marks = 0
        return held

    def readable(self, text: str) -> str:
        """The text without its marks."""
        return _ANY_MARK.sub("", text) if self._marks else text

    def _follow(self, char: str) -> None:
        if not self._marks:
            self._as_read = self._with_marks = self._step(self._as_read, char)
            return
        self._with_marks = self._step(self._with_marks, char)
        if char not in self._mark_chars:
            self._as_read = self._step(self._as_read, char)

    def _match(self, seen: str, end: int) -> tuple[int, str]:
        """Where the longest stop string that ends here begins, and which it is."""
        as_read, with_marks = self._found[self._as_read], self._found[self._with_marks]
        matches = [(self._back(seen, end, as_read[1]), as_read[0])] if as_read else []
        if with_marks:
            matches.append((end - with_marks[1], with_marks[0]))
        return min(matches)

    def _back(self, seen: str, end: int, chars: int) -> int:
        """Where the last so many characters before `end` begin, marks not counted."""
        if not self._marks:
            return end - chars
        while chars:
            end -= 1
            chars -= seen[end] not in self._mark_chars
        return end

    def _step(self, state: int, char: str) -> int:
        while state and char not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(char, 0)

    def _add(self, pattern: str, stop: str) -> None:
        state = 0
        for char in pattern:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._fallback.append(0)
                self._depth.append(self._depth[state] + 1)
                self._found.append(None)
            state = self._next[state][char]
        self._found[state] = (stop, len(pattern))

    def _link(self) -> None:
        """Give each state its fallback, the longest shorter end of it that also begins a stop string, and
        from there the stop string that ends in it. Breadth first, since a fallback is always less deep."""
        todo = deque(self._next[0].values())
        while todo:
            state = todo.popleft()
            for char, child in self._next[state].items():
                self._fallback[child] = self._step(self._fallback[state], char)
                if self._found[child] is None:
                    self._found[child] = self._found[self._fallback[child]]
                todo.append(child)


def _marks_for(stops: Sequence[str], special_texts: Iterable[str]) -> Mapping[str, str]:
    """A mark for each special text that some stop string has."""
    texts = [text for text in special_texts if text]
    known, lengths = frozenset(texts), sorted({len(text) for text in texts}, reverse=True)
    found = {text for stop in stops for start in range(len(stop)) for text in _at(stop, start, known, lengths)}
    return dict(zip((text for text in dict.fromkeys(texts) if text in found), _MARKS, strict=False))


def _with_marks(stop: str, marks: Mapping[str, str]) -> str:
    """The stop string with marks for special texts; the longest of those that begin together."""
    if not marks:
        return stop
    lengths = sorted({len(text) for text in marks}, reverse=True)
    start, written = 0, []
    while start < len(stop):
        text = next(_at(stop, start, marks, lengths), "")
        written.append(marks[text] if text else stop[start])
        start += len(text) or 1
    return "".join(written)


def _at(stop: str, start: int, known: Container[str], lengths: Sequence[int]) -> Iterator[str]:
    """The known texts that begin here, the longest first. There may be thousands of them, of a few lengths."""
    for length in lengths:
        if (text := stop[start : start + length]) in known and len(text) == length:
            yield text
