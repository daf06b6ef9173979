"""The child's one loop: it drains its inbox, lets the engine make a step, and sends what came of it.

`run` takes its inbox and outbox as arguments, and does not know whether it is in a child process or in a
thread of a test. `main` is the process: `python -m mlx_grpc.engine.worker --in-fd N --out-fd M`, started by
`engine.link`. Nothing here imports MLX; the engine that `Load` asks for does.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from mlx_grpc.engine.backend import set_defaults
from mlx_grpc.engine.messages import Cancel, Close, FromWorker, Load, LoadFailed, Row, Step, Submit, ToWorker
from mlx_grpc.engine.pipe import read_frames, write_frame
from mlx_grpc.engine.protocol import Engine, LoadError, OpenEngine

SCRIPT_PREFIX = "script:"
NICENESS = 3
"""On a CPU the engine takes every core there is; refusals, health and other people's tokens must not wait for it."""
REST_SECONDS = 1.0
"""An engine without rows for so long gives back the memory that it keeps for the next step."""

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


def open_engine(load: Load) -> Engine:
    """The engine that the path asks for. MLX is imported only for a real model."""
    if load.path.startswith(SCRIPT_PREFIX):
        from mlx_grpc.engine.fake import open_scripted

        return open_scripted(load)
    from mlx_grpc.models.blas import load_openblas

    set_defaults()
    note = load_openblas()  # before MLX, which would take the slow reference BLAS
    from mlx_grpc.engine.mlx_engine import open_mlx

    return open_mlx(load, [note])


def main(arguments: Sequence[str] | None = None) -> int:
    """The child process; returns its exit code. What libraries print goes to stderr, since stdout may be the
    server's own. Ctrl-C and a service manager's SIGTERM reach the whole process group, but the server alone
    decides."""
    parser = argparse.ArgumentParser(prog="mlx_grpc.engine.worker", description=__doc__)
    parser.add_argument("--in-fd", type=int, required=True, help="the pipe that frames come from")
    parser.add_argument("--out-fd", type=int, required=True, help="the pipe that frames go to")
    fds = parser.parse_args(arguments)
    os.dup2(sys.stderr.fileno(), 1)
    faulthandler.enable()
    os.nice(NICENESS)
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)

    inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
    done = threading.Event()
    pipe = os.fdopen(fds.in_fd, "rb")
    threading.Thread(target=read_frames, args=(pipe, inbox, done), name="inbox", daemon=True).start()
    try:
        run(inbox, functools.partial(write_frame, fds.out_fd), open_engine)
    except BrokenPipeError:
        return 1  # the server has gone: nobody is left to tell
    finally:
        done.set()
    return 0


if __name__ == "__main__":
    sys.exit(main())
