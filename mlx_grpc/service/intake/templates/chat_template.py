"""A model's chat template: rendering, what it is known to do, and which turns it loses where."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mlx_grpc.service.intake.templates.probe import Render, first_lost, probe, reason_of, sentinel
from mlx_grpc.service.intake.templates.time_limit import run_within
from mlx_grpc.service.intake.templates.traits import (
    UNKNOWN,
    ContentForm,
    PassedMessage,
    in_form,
    with_text_appended,
)

PROBE_SECONDS = 5.0
"""For all renderings of the probe. Published templates take some 50 ms."""
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


class ChatTemplate:
    """One model's template. Building it tries the template, which takes time: not in an event loop. Threads may share
    it.

    `fault` says why the template must not be run at all; it is empty for all but those that do not end.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self.fault = ""
        try:
            self.traits = run_within(PROBE_SECONDS, lambda: probe(render))
        except TimeoutError as error:
            self.traits, self.fault = UNKNOWN, reason_of(error)
        self._remembered = functools.lru_cache(maxsize=REMEMBERED_ORDERS)(self._try_order)

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

        What was tried is remembered: a conversation costs a second rendering only where its order is new.
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
        except Exception as error:  # a template can raise anything
            return Trial(None, reason_of(error))
