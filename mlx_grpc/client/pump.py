"""Reads a blocking call in a thread of its own, so that Ctrl-C finds its reader outside gRPC.

gRPC's blocking iterator waits on conditions written in Python. A KeyboardInterrupt that is raised there,
between taking a lock and giving it back, leaves the lock taken and every later call of the channel stuck:
seen in 2 of 40 chats that were stopped in the middle of an answer. Waiting on a SimpleQueue, which is C, has
no such moment.

At its end the interpreter stops such threads wherever they are, with the call's lock taken perhaps, and gRPC takes that
lock once more when the call is collected: 3 of 250 `mlx-grpc generate | head -0` never ended. So `cancel` waits until
neither this thread nor gRPC's has anything to do with the call.
"""

from __future__ import annotations

import _thread
from queue import SimpleQueue
from typing import Any

READ_AHEAD_MESSAGES = 16
MOST_WAIT_SECONDS = 2.0
"""For a call that was cancelled, which takes no time, to be over."""

Answer = tuple[Any, BaseException | None]


class Pump:
    """An iterator over a call's messages. At most 16 are read ahead, so a slow reader still slows the server
    down.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._wishes: SimpleQueue[bool] = SimpleQueue()
        for _ in range(READ_AHEAD_MESSAGES):
            self._wishes.put(True)
        self._running = _thread.allocate_lock()
        self._running.acquire()
        # Not threading.Thread, whose start() waits on such a condition, too.
        self._thread = _thread.start_new_thread(_pump, (call, self._wishes, self._answers, self._running))

    def __next__(self) -> Any:
        """The next message; raises what the call raised, StopIteration at its end, and again when asked
        again.
        """
        message, error = self._answers.get()
        if error is not None:
            self._answers.put((None, error))
            raise error
        self._wishes.put(True)
        return message

    def cancel(self) -> None:
        """Cancels the call, and waits until it and the thread have ended."""
        self._wishes.put(False)
        self._call.cancel()
        # A collector that runs in the thread itself may be who calls this.
        if _thread.get_ident() != self._thread and self._running.acquire(timeout=MOST_WAIT_SECONDS):
            self._running.release()


def _pump(call: Any, wishes: SimpleQueue[bool], answers: SimpleQueue[Answer], running: _thread.LockType) -> None:
    """The thread: one message a wish, until the call ends or the wish is False, which comes with a cancel.

    It holds no Pump, so that one that is lost is collected and cancels its call.
    """
    error: BaseException = StopIteration()
    while wishes.get():
        try:
            message = next(call)
        except BaseException as caught:  # the reader is the one to see it
            error = caught
            break
        answers.put((message, None))
    answers.put((None, error))
    over: SimpleQueue[None] = SimpleQueue()
    if call.add_callback(lambda: over.put(None)):  # False: it is over
        over.get()
    running.release()
