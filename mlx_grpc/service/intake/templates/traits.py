"""What a chat template does, as plain data, and what follows from it for a conversation. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_REASON_CHARS = 200
PassedMessage = dict[str, Any]
"""A message as a template gets it: `role`, and `content` as a string or as a list of typed parts."""


class ContentForm(enum.Enum):
    """How a template takes the content of a role's turns."""

    TEXT = "text"
    PARTS = "parts"
    EITHER = "either"


class RepeatedTurns(enum.Enum):
    """What becomes of two turns of one role in a row."""

    SEPARATE = "separate"
    MERGED = "merged"
    REFUSED = "refused"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """What a template does with short texts, without template arguments.

    The traits decide what is passed. They refuse nothing: whether a turn of a conversation is lost depends on its place
    and on the template's arguments, and is seen for each sequence of roles.
    """

    content: Mapping[str, ContentForm]
    """The roles that it renders somewhere, and how each takes its content."""
    refusals: Mapping[str, str]
    """The roles for which it raises an error, and what the error says."""
    knows_developer: bool
    """It renders a developer's turn, and otherwise than that of a role that nobody has."""
    later_system: bool
    """It renders a system turn that is not the first."""
    repeated_turns: RepeatedTurns
    trims: frozenset[str]
    """The roles whose content loses the white space around it."""
    strips_reasoning: bool
    """It leaves the `<think>` block of an earlier assistant turn out."""

    def summary(self) -> str:
        """One line for the log."""
        return (
            f"renders {', '.join(self.content) or 'no role by itself'}; "
            f"typed parts for {', '.join(self.roles_of_parts) or 'no role'}; "
            f"a developer turn is passed as {passed_role(self, 'developer')}; "
            f"repeated turns are {self.repeated_turns.value}"
        )

    @property
    def roles_of_parts(self) -> tuple[str, ...]:
        """The roles whose content is passed as typed parts."""
        return tuple(role for role, form in self.content.items() if form is ContentForm.PARTS)


UNKNOWN = TemplateTraits({}, {}, True, True, RepeatedTurns.SEPARATE, frozenset(), False)
"""Of a template that could not be tried: everything is passed as it was sent."""


def one_line(text: str) -> str:
    """What somebody else's program said, in one bounded line."""
    lines = text.strip().splitlines()
    return lines[0][:MAX_REASON_CHARS] if lines else ""


def plain_traits(traits: TemplateTraits) -> dict[str, Any]:
    """The traits as JSON can hold them."""
    return {
        "content": {role: form.value for role, form in traits.content.items()},
        "refusals": dict(traits.refusals),
        "knows_developer": traits.knows_developer,
        "later_system": traits.later_system,
        "repeated_turns": traits.repeated_turns.value,
        "trims": sorted(traits.trims),
        "strips_reasoning": traits.strips_reasoning,
    }


def traits_of_plain(plain: Mapping[str, Any]) -> TemplateTraits:
    """The traits that `plain_traits` wrote. Raises ValueError, KeyError, TypeError or AttributeError for all else."""
    return TemplateTraits(
        content={str(role): ContentForm(form) for role, form in plain["content"].items()},
        refusals={str(role): one_line(str(reason)) for role, reason in plain["refusals"].items()},
        knows_developer=bool(plain["knows_developer"]),
        later_system=bool(plain["later_system"]),
        repeated_turns=RepeatedTurns(plain["repeated_turns"]),
        trims=frozenset(map(str, plain["trims"])),
        strips_reasoning=bool(plain["strips_reasoning"]),
    )


def passed_role(traits: TemplateTraits, role: str) -> str:
    """The role that is passed: a developer's turn becomes a system turn where the template knows only the latter."""
    instead = role == "developer" and not traits.knows_developer and "system" in traits.content
    return "system" if instead else role


def passed_message(traits: TemplateTraits, role: str, content: str) -> PassedMessage:
    """The turn as the template takes it."""
    role = passed_role(traits, role)
    return in_form(role, content, traits.content.get(role, ContentForm.TEXT))


def in_form(role: str, text: str, form: ContentForm) -> PassedMessage:
    """A message whose content has this form; text where either will do."""
    return {"role": role, "content": [{"type": "text", "text": text}] if form is ContentForm.PARTS else text}


def with_text_appended(message: PassedMessage, text: str) -> PassedMessage:
    """The message with more text at the end of its content."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + text}
    *before, last = content
    return {**message, "content": [*before, {**last, "text": last["text"] + text}]}


def blamed_position(traits: TemplateTraits, roles: Sequence[str]) -> int | None:
    """The message for which the template most likely raised an error, by the roles as passed; None when no single
    message is at fault."""
    for position, role in enumerate(roles):
        if role in traits.refusals:
            return position
    for position in range(1, len(roles)):
        if roles[position] == roles[position - 1] and traits.repeated_turns is RepeatedTurns.REFUSED:
            return position
        if roles[position] == "system" and not traits.later_system:
            return position
    return None
