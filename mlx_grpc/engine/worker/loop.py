"""The worker's one loop: it drains its inbox, lets the engine make a step, and sends what came of it.

`run` takes its inbox and outbox as arguments, and does not know whether it is in a child process or in a thread of a
test. Nothing here imports MLX.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from mlx_grpc.engine.exits import exit_reason
from mlx_grpc.engine.messages import Cancel, Close, FromWorker, Load, LoadFailed, Row, Step, StepBegan, Submit, ToWorker
from mlx_grpc.engine.protocol import Engine, LoadError, OpenEngine

REST_SECONDS = 1.0
"""An engine without rows for so long gives back the memory that it keeps for the next step."""
LONG_STEP_SECONDS = 0.5
"""A step that is expected to take longer is announced, so that nobody takes the engine for hung."""

Outbox = Callable[[FromWorker], None]


class Inbox(Protocol):
    """As `queue.SimpleQueue` has it."""

    def get(self, *, timeout: float | None = None) -> ToWorker:
        """The next message; waits for it. Raises queue.Empty after so many seconds."""

    def get_nowait(self) -> ToWorker:
        """The next message. Raises queue.Empty when there is none."""


def run(inbox: Inbox, outbox: Outbox, open_engine: OpenEngine) -> None:
    """Load a model and serve rows until Close. An error of a whole step is raised: the batch cannot be
    trusted then."""
    first = inbox.get()
    if not isinstance(first, Load):
        return
    try:
        engine = open_engine(first)
    except LoadError as error:
        outbox(LoadFailed(str(error)))
        return
    except (ImportError, SystemExit) as error:  # a package that the model needs, when it is imported
        why = exit_reason(error) if isinstance(error, SystemExit) else " ".join(str(error).split())
        outbox(LoadFailed(f"{first.path} cannot be loaded: {why}"))
        return
    try:
        outbox(engine.loaded)
        while (messages := _drain(inbox, engine)) is not None:
            _turn(engine, messages, outbox)
    finally:
        engine.close()


def _drain(inbox: Inbox, engine: Engine) -> list[ToWorker] | None:
    """All messages that are there, at least one when the engine has no rows; None when one of them is Close."""
    messages = [] if engine.active_rows else [_awaited(inbox, engine)]
    with contextlib.suppress(queue.Empty):
        while True:
            messages.append(inbox.get_nowait())
    return None if any(isinstance(message, Close) for message in messages) else messages


def _awaited(inbox: Inbox, engine: Engine) -> ToWorker:
    """The next message. The engine rests when it does not come soon."""
    with contextlib.suppress(queue.Empty):
        return inbox.get(timeout=REST_SECONDS)
    engine.rest()
    return inbox.get()


def _turn(engine: Engine, messages: Sequence[ToWorker], outbox: Outbox) -> None:
    """Let rows leave and enter, make one step if there are any, and send all of it as one message."""
    entering: dict[int, Row] = {}
    leaving: list[int] = []
    never_entered: list[int] = []
    for message in messages:
        if isinstance(message, Submit):
            entering |= {row.row_id: row for row in message.rows}
        elif isinstance(message, Cancel):
            for row_id in message.row_ids:
                (leaving if entering.pop(row_id, None) is None else never_entered).append(row_id)

    # Those that leave make room for those that enter.
    removed = engine.cancel(leaving) + never_entered if leaving else never_entered
    failed = engine.submit(list(entering.values())) if entering else []
    if not (engine.active_rows or removed or failed):
        return
    if engine.active_rows and (expected_seconds := engine.expected_seconds()) > LONG_STEP_SECONDS:
        outbox(StepBegan(expected_seconds))
    started = time.monotonic()
    step = engine.step() if engine.active_rows else Step()
    outbox(
        msgspec.structs.replace(
            step,
            removed=removed + step.removed,
            failed=failed + step.failed,
            seconds=time.monotonic() - started,
        )
    )
