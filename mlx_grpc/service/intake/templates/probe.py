"""Tries a chat template with short texts, and sees what comes out.

Each turn's content is a sentinel, a word that no template writes by itself: a turn survives when its sentinel is in the
rendered text, whatever the template puts around it or takes away from its ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlx_grpc.service.intake.templates.traits import (
    UNKNOWN,
    ContentForm,
    PassedMessage,
    RepeatedTurns,
    TemplateTraits,
    in_form,
    one_line,
)

Render = Callable[[Sequence[PassedMessage], Mapping[str, Any], bool], str]
"""From messages, template arguments, and whether the assistant's next turn is opened, to a text. Raises anything."""

NOBODY = "zqrole"
"""A role that no template knows."""
_PAD = " \n "
_THOUGHT = 9999
"""The sentinel within an assistant's reasoning."""

# Where a turn of the role stands while it is tried; a template may render it in one place and not in another.
_PLACES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "user": (("user",),),
    "system": (("system", "user"),),
    "developer": (("developer", "user"),),
    "assistant": (("user", "assistant", "user"), ("user", "assistant")),
    "tool": (("user", "assistant", "tool"), ("user", "tool"), ("user", "assistant", "tool", "assistant", "user")),
}


def sentinel(position: int) -> str:
    """The content of the turn at this position. None is part of another, also where they touch."""
    return f"zq{position:04d}qz"


def first_lost(text: str, turns: int) -> int | None:
    """The first turn whose sentinel the text lacks. Templates may write in capitals."""
    folded = text.casefold()
    return next((position for position in range(turns) if sentinel(position) not in folded), None)


def reason_of(error: BaseException) -> str:
    """What an error says, in one bounded line."""
    return one_line(str(error)) or type(error).__name__


def probe(render: Render) -> TemplateTraits:
    """What the template does, from some two dozen renderings. Raises MemoryError alone."""
    trial = _Trial(render)
    for role in _PLACES:
        trial.find_form(role)
        if not trial.forms:  # not even the user's turn: it needs arguments, or is broken
            return UNKNOWN
    return TemplateTraits(
        content=dict(trial.forms),
        refusals=dict(trial.refusals),
        knows_developer="developer" in trial.forms and not trial.treats_as_nobody("developer"),
        later_system=trial.survives(["user", "assistant", "system", "user"], 2),
        repeated_turns=trial.repeated_turns(),
        trims=frozenset(role for role in trial.forms if trial.trims(role)),
        strips_reasoning=trial.strips_reasoning(),
    )


class _Trial:
    """One template being tried. `forms` grows while roles are found: the others' turns are passed as they take them."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._places: dict[str, tuple[str, ...]] = {}
        self.forms: dict[str, ContentForm] = {}
        self.refusals: dict[str, str] = {}

    def find_form(self, role: str) -> None:
        """How the role's content is taken, at the first place where it is rendered; its refusal where each place raises
        an error."""
        reasons: list[str] = []
        for place in _PLACES[role]:
            position = place.index(role)
            text = self._run(self._turns(place, {role: ContentForm.TEXT}), reasons)
            parts = self._run(self._turns(place, {role: ContentForm.PARTS}), reasons)
            if _lives(text, position):
                same = _squeezed(text) == _squeezed(parts)
                self.forms[role] = ContentForm.EITHER if same else ContentForm.TEXT
            elif _lives(parts, position):
                self.forms[role] = ContentForm.PARTS
            else:
                continue
            self._places[role] = place
            return
        if len(reasons) == 2 * len(_PLACES[role]):
            self.refusals[role] = reasons[0]

    def treats_as_nobody(self, role: str) -> bool:
        """Whether a turn of the role looks like one of a role that nobody has, except for the role's name."""
        turns = self._turns(self._places[role])
        others = [{**turn, "role": NOBODY} if turn["role"] == role else turn for turn in turns]
        text, nobody = self._run(turns), self._run(others)
        return text is not None and nobody is not None and text.casefold() == nobody.casefold().replace(NOBODY, role)

    def survives(self, roles: Sequence[str], position: int) -> bool:
        """Whether this turn of such a conversation is rendered."""
        return _lives(self._run(self._turns(roles)), position)

    def repeated_turns(self) -> RepeatedTurns:
        """What becomes of two user turns in a row."""
        text = self._run(self._turns(("user", "user")))
        if text is None:
            return RepeatedTurns.REFUSED
        if first_lost(text, 2) is not None:
            return RepeatedTurns.LOST
        _, _, after = text.casefold().partition(sentinel(0))
        between, _, _ = after.partition(sentinel(1))
        return RepeatedTurns.SEPARATE if between.strip() else RepeatedTurns.MERGED

    def trims(self, role: str) -> bool:
        """Whether white space around the content goes away."""
        place = self._places[role]
        padded = f"{_PAD}{sentinel(place.index(role))}{_PAD}"
        text = self._run(self._turns(place, contents={place.index(role): padded}))
        return text is not None and padded not in text.casefold()

    def strips_reasoning(self) -> bool:
        """Whether an earlier assistant turn keeps its answer and loses its `<think>` block."""
        contents = {1: f"<think>\n{sentinel(_THOUGHT)}\n</think>\n\n{sentinel(1)}"}
        text = self._run(self._turns(("user", "assistant", "user"), contents=contents))
        return _lives(text, 1) and not _lives(text, _THOUGHT)

    def _turns(
        self,
        roles: Sequence[str],
        forms: Mapping[str, ContentForm] | None = None,
        contents: Mapping[int, str] | None = None,
    ) -> list[PassedMessage]:
        """Turns of these roles, in the forms found so far and these, with sentinels and these contents."""
        forms, contents = {**self.forms, **(forms or {})}, contents or {}
        return [
            in_form(role, contents.get(position, sentinel(position)), forms.get(role, ContentForm.TEXT))
            for position, role in enumerate(roles)
        ]

    def _run(self, turns: Sequence[PassedMessage], reasons: list[str] | None = None) -> str | None:
        """The rendered text; None for an error, and its reason among `reasons`."""
        try:
            return self._render(turns, {}, True)
        except MemoryError:
            raise
        except Exception as error:  # a template can raise anything
            if reasons is not None:
                reasons.append(reason_of(error))
            return None


def _lives(text: str | None, position: int) -> bool:
    return text is not None and sentinel(position) in text.casefold()


def _squeezed(text: str | None) -> str | None:
    return None if text is None else "".join(text.split())
