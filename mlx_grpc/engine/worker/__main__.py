"""The child process: `python -m mlx_grpc.engine.worker --in-fd N --out-fd M`, started by `engine.link.process`."""

from __future__ import annotations

import argparse
import faulthandler
import functools
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence

from mlx_grpc.engine.accel.temporary_folder import use_private_temporary_folder
from mlx_grpc.engine.messages import ToWorker
from mlx_grpc.engine.worker.loop import run
from mlx_grpc.engine.worker.open import open_engine
from mlx_grpc.engine.worker.pipe import read_frames, write_frame

NICENESS = 3
"""On a CPU the engine takes every core there is; refusals, health and other people's tokens must not wait for it."""


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
    use_private_temporary_folder()
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
