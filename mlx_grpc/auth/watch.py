"""Reads token and certificate files again from time to time, in a thread: whether calls come or not.

A call looks at the files by itself, so a change counts from the next call on. That look can miss one: a network's file
system may keep what it knew of a file, and an old time can be given back to a new file. What this thread finds is
never older than a few seconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from mlx_grpc.auth.reload import FromFiles
from mlx_grpc.bounds.descriptors import Spare

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0


class Watch:
    """The thread, and the descriptor that it and others read with when there is no other. Without files it does
    nothing."""

    def __init__(self, files: Sequence[FromFiles[Any]], spare: Spare) -> None:
        self._files = tuple(files)
        self._spare = spare
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Once; `close` must follow."""
        if self._files:
            self._spare.hold()
            self._thread = threading.Thread(target=self._run, name="token and certificate files", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Returns when the thread has ended; may be called without a start."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        self._spare.close()

    def _run(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            for one in self._files:
                try:
                    one.refresh()
                except Exception:
                    log.exception("a bug of this server: its files were not read")
