"""Stop strings, found while text streams past, wherever the borders of its pieces lie.

The search is an Aho-Corasick automaton over all stop strings: one step a character, however many there are.
Its state is the longest end of the text that begins some stop string, so what must be held back is exactly as
long as the state is deep, and everything before it may go out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mlx_grpc.service.intake.validate import check_stop_strings


class StopStrings:
    """One text's search for its stop strings.

    The match that is complete first wins; among those complete at the same character, the longest. The result
    does not depend on how the text was cut into pieces. Raises InvalidField as `check_stop_strings` does.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        check_stop_strings(stops)
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]
        self._depth = [0]
        self._found: list[str | None] = [None]
        for stop in stops:
            self._add(stop)
        self._link()
        self._state = 0
        self._held = ""

    @property
    def held_chars(self) -> int:
        """How many characters are held back now."""
        return len(self._held)

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that can be shown now, and the stop string that was found, or None.

        After a match nothing more may be fed: the text ended where the stop string begins.
        """
        if len(self._next) == 1:
            return text, None
        seen = self._held + text
        for end, char in enumerate(text, start=len(self._held) + 1):
            self._state = self._step(self._state, char)
            found = self._found[self._state]
            if found is not None:
                self._held = ""
                return seen[: end - len(found)], found
        safe_chars = len(seen) - self._depth[self._state]
        self._held = seen[safe_chars:]
        return seen[:safe_chars], None

    def flush(self) -> str:
        """The text has ended: what was held back is no stop string after all."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _step(self, state: int, char: str) -> int:
        while state and char not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(char, 0)

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._fallback.append(0)
                self._depth.append(self._depth[state] + 1)
                self._found.append(None)
            state = self._next[state][char]
        self._found[state] = stop

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
