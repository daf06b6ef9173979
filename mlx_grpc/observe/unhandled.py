"""What nobody caught goes to the log, escaped and bounded as all of it. For a process of the server's own."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any

from mlx_grpc.bounds.descriptors import EXHAUSTED

log = logging.getLogger(__name__)

SAY_AGAIN_SECONDS = 60.0


def log_unhandled() -> None:
    """Exceptions that end a thread or come from where nobody can catch them, and warnings."""
    threading.excepthook = _of_thread
    sys.unraisablehook = _unraisable
    logging.captureWarnings(True)


class LoopErrors:
    """An event loop's exception handler: that no descriptor was free for a connection is one line, at most once a
    minute, in place of a traceback for each."""

    def __init__(self) -> None:
        self._said_seconds = -SAY_AGAIN_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """For `loop.set_exception_handler`."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in EXHAUSTED and "socket" in context):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said_seconds >= SAY_AGAIN_SECONDS:
            self._said_seconds = time.monotonic()
            log.warning("new connections wait: %s; raise `ulimit -n`", error.strerror)


def _of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread else "a thread"
    log.error("%s ended with an error", name, exc_info=_info(args.exc_value, args.exc_traceback))


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    message = args.err_msg or "nobody could catch an error"
    log.error("%s: %r", message, args.object, exc_info=_info(args.exc_value, args.exc_traceback))


def _info(error: BaseException | None, trace: TracebackType | None) -> Any:
    return (type(error), error, trace) if error else None
