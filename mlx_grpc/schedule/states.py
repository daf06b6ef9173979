"""A request's life, as a table.

The rules:

- A request that was refused never lived: only an accepted one is submitted, and from then on it ends exactly
  once, in DONE.
- WAITING holds a place in the queue. PREFILL and DECODE hold a row of the batch and the KV cache reserved for
  it.
- A request cancelled while it waits is done at once. One that has a row is LEAVING until the engine says that
  the row is gone: until then row and bytes are still taken, and tokens, or the natural end, may still be on
  their way.
- The engine's word is final: it may end a row that nobody cancelled (REMOVED), and that is an end like
  another.
- When the engine crashes, rows that somebody waits for go back to WAITING and prefill again, so that
  FIRST_TOKEN comes again too. Nobody waits for a row that was LEAVING: the crash has removed it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """Where a request is."""

    NEW = "new"
    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    LEAVING = "leaving"
    DONE = "done"


class Trigger(enum.Enum):
    """What can happen to it."""

    SUBMIT = "submit"
    ADMIT = "admit"
    FIRST_TOKEN = "first token"
    FINISH = "finish"
    CANCEL = "cancel"
    REMOVED = "removed"
    CRASH = "crash"


ROW_STATES = frozenset({State.PREFILL, State.DECODE, State.LEAVING})
"""States that hold a row of the batch."""

TRANSITIONS: Mapping[State, Mapping[Trigger, State]] = {
    State.NEW: {
        Trigger.SUBMIT: State.WAITING,
    },
    State.WAITING: {
        Trigger.ADMIT: State.PREFILL,
        Trigger.CANCEL: State.DONE,
    },
    State.PREFILL: {
        Trigger.FIRST_TOKEN: State.DECODE,
        Trigger.FINISH: State.DONE,
        Trigger.CANCEL: State.LEAVING,
        Trigger.REMOVED: State.DONE,
        Trigger.CRASH: State.WAITING,
    },
    State.DECODE: {
        Trigger.FINISH: State.DONE,
        Trigger.CANCEL: State.LEAVING,
        Trigger.REMOVED: State.DONE,
        Trigger.CRASH: State.WAITING,
    },
    State.LEAVING: {
        Trigger.FIRST_TOKEN: State.LEAVING,
        Trigger.FINISH: State.DONE,
        Trigger.CANCEL: State.LEAVING,
        Trigger.REMOVED: State.DONE,
        Trigger.CRASH: State.DONE,
    },
    State.DONE: {},
}


class IllegalTrigger(RuntimeError):
    """A trigger that the request's state does not allow: a mistake in this server, never in a client."""

    def __init__(self, state: State, trigger: Trigger) -> None:
        super().__init__(f"trigger {trigger.name} is not allowed in state {state.name}")
        self.state = state
        self.trigger = trigger


class Life:
    """One request's state. It moves by TRANSITIONS and in no other way."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.NEW

    def move(self, trigger: Trigger) -> State:
        """Take `trigger` and return the new state. IllegalTrigger, the state unchanged, where the table has
        none."""
        try:
            self.state = TRANSITIONS[self.state][trigger]
        except KeyError:
            raise IllegalTrigger(self.state, trigger) from None
        return self.state

    @property
    def holds_row(self) -> bool:
        """Whether a row of the batch and its KV cache are taken."""
        return self.state in ROW_STATES
