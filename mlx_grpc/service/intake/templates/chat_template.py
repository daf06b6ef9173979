"""A model's chat template: rendering, what it is known to do, and which turns it loses where."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mlx_grpc.service.intake.templates.probe import Render, first_lost, probe, reason_of, sentinel
from mlx_grpc.service.intake.templates.traits import (
    UNKNOWN,
    ContentForm,
    PassedMessage,
    TemplateTraits,
    in_form,
    passed_message,
    with_text_appended,
)

REMEMBERED_ORDERS = 512
REMEMBERED_ARGS_CHARS = 1024
"""With longer arguments an order is tried again each time: they would fill the memory."""
_CUT = "zqcutqz "
"""Marks the end of a message that is to be continued. Its space tells whether the template keeps white space there."""
_ROLES = {role[0]: role for role in ("system", "developer", "user", "assistant", "tool")}


class LastMessageLost(ValueError):
    """The message that is to be continued is not in the rendered text."""


class Trial(NamedTuple):
    """What a rendering of sentinels shows: the first turn that is left out, or the error that the template raised."""

    lost: int | None
    error: str = ""


class Written(NamedTuple):
    """A chat as the template writes it, or why there is none: a turn would be lost, the template raised an error, or it
    was stopped at a limit."""

    text: str = ""
    lost: int | None = None
    error: str = ""
    stopped: str = ""


Turn = Sequence[str]
"""A role and what was said."""


def nobody_left() -> bool:
    """The caller waits."""
    return False


class Template(Protocol):
    """A model's chat template. Threads may share it.

    `fault` says why the template must not be run at all; it is empty for all but those that do not keep to their limits
    when they are tried.
    """

    traits: TemplateTraits
    fault: str

    def write(
        self, turns: Sequence[Turn], args_json: str, continued: bool, has_left: Callable[[], bool] = nobody_left
    ) -> Written:
        """Render a conversation, with template arguments as a JSON object or nothing: open for the assistant's next
        turn or, if `continued`, at the end of its last.

        Blocks, for about a second at most. When `has_left` says that nobody wants the result, it ends soon, with any.
        """

    def close(self) -> None:
        """End what it runs in."""


class UnusableTemplate:
    """One that cannot be run, and why."""

    def __init__(self, fault: str) -> None:
        self.traits = UNKNOWN
        self.fault = fault

    def write(
        self, turns: Sequence[Turn], args_json: str, continued: bool, has_left: Callable[[], bool] = nobody_left
    ) -> Written:
        """See `Template`."""
        return Written(stopped=self.fault)

    def close(self) -> None:
        """Nothing runs."""


class ChatTemplate:
    """A template that is run in this process, where nothing bounds it: our own, or any in a process made for that.

    Building it tries the template unless its traits are known.
    """

    fault = ""

    def __init__(self, render: Render, traits: TemplateTraits | None = None) -> None:
        self._render = render
        self.traits = probe(render) if traits is None else traits
        self._remembered = functools.lru_cache(maxsize=REMEMBERED_ORDERS)(self._try_order)

    def write(
        self, turns: Sequence[Turn], args_json: str, continued: bool, has_left: Callable[[], bool] = nobody_left
    ) -> Written:
        """See `Template`. Raises MemoryError alone."""
        messages = [passed_message(self.traits, role, content) for role, content in turns]
        trial = self.try_roles([message["role"] for message in messages], args_json, continued)
        text = ""
        if trial.lost is None:
            try:
                args = json.loads(args_json or "{}")
                text = self.render(messages, args, continued)
            except LastMessageLost:
                return Written(lost=len(messages) - 1)
            except MemoryError:
                raise
            except Exception as error:  # a template can raise anything: its own error, TypeError, OverflowError
                return Written(error=reason_of(error))
            if trial.error:
                trial = self.try_messages(messages, args, continued)
        return Written(lost=trial.lost, error=trial.error) if trial.error or trial.lost is not None else Written(text)

    def close(self) -> None:
        """It runs here."""

    def render(self, messages: Sequence[PassedMessage], args: Mapping[str, Any], continued: bool) -> str:
        """The conversation as the template writes it: open for the assistant's next turn or, if continued, at the end
        of its last message. Raises what the template raises, and LastMessageLost."""
        if not continued:
            return self._render(messages, args, True)
        *before, last = messages
        text = self._render([*before, with_text_appended(last, _CUT)], args, False)
        start, found, rest = text.rpartition(_CUT.strip())
        if not found:
            raise LastMessageLost
        return start if rest.startswith(" ") else start.rstrip()

    def try_roles(self, roles: Sequence[str], args_json: str, continued: bool) -> Trial:
        """Which turn is left out of a conversation with this order of roles and these arguments, whatever is said.

        What was tried is remembered: a conversation costs a second rendering only where its order is new, and that
        one's size does not depend on what was said.
        """
        order = "".join(role[0] for role in roles)
        look = self._remembered if len(args_json) <= REMEMBERED_ARGS_CHARS else self._try_order
        return look(order, args_json, continued)

    def try_messages(self, messages: Sequence[PassedMessage], args: Mapping[str, Any], continued: bool) -> Trial:
        """Which of these very messages is left out, each with a sentinel at its end: for templates that read what is
        said, and refuse mere sentinels."""
        marked = [with_text_appended(message, f" {sentinel(n)}") for n, message in enumerate(messages)]
        return self._try(marked, lambda: args, continued)

    def _try_order(self, order: str, args_json: str, continued: bool) -> Trial:
        roles = [_ROLES[initial] for initial in order]
        messages = [
            in_form(role, sentinel(position), self.traits.content.get(role, ContentForm.TEXT))
            for position, role in enumerate(roles)
        ]
        return self._try(messages, lambda: json.loads(args_json or "{}"), continued)

    def _try(self, messages: Sequence[PassedMessage], args: Callable[[], Mapping[str, Any]], continued: bool) -> Trial:
        try:
            return Trial(first_lost(self.render(messages, args(), continued), len(messages)))
        except LastMessageLost:
            return Trial(len(messages) - 1)
        except MemoryError:
            raise
        except Exception as error:  # a template can raise anything
            return Trial(None, reason_of(error))
