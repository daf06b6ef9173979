"""The child's ends of its two pipes: frames in, frames out, and an end when the server has gone."""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import BinaryIO

import msgspec

from mlx_grpc.engine.messages import (
    FRAME_HEADER_BYTES,
    MAX_FRAME_BYTES,
    Close,
    FromWorker,
    ToWorker,
    decode_to_worker,
    encode,
)

CLOSE_GRACE_SECONDS = 5.0


def read_frames(pipe: BinaryIO, inbox: queue.SimpleQueue[ToWorker], done: threading.Event) -> None:
    """Fill the inbox from the pipe. When the pipe closes the server has gone or wants this process gone: a
    loop that does not end by itself, hanging in a step, is ended hard, so that no orphan is ever left."""
    try:
        while header := pipe.read(FRAME_HEADER_BYTES):
            length = int.from_bytes(header, "big")
            body = pipe.read(length) if length <= MAX_FRAME_BYTES else b""
            if len(header) < FRAME_HEADER_BYTES or len(body) < length:
                break
            inbox.put(decode_to_worker(body))
    except msgspec.MsgspecError as error:
        sys.stderr.write(f"the engine was sent what is not a message: {error}\n")
    finally:
        inbox.put(Close())
        if not done.wait(CLOSE_GRACE_SECONDS):
            os._exit(1)


def write_frame(out_fd: int, message: FromWorker) -> None:
    """The whole frame, waiting when the kernel's buffer is full: a server that does not read stops the
    child."""
    view = memoryview(encode(message))
    while view:
        view = view[os.write(out_fd, view) :]
