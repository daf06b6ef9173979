"""The process that runs one model's chat template: `python -m mlx_grpc.service.intake.templates.child`.

`process` starts it, with a pipe each way on its standard input and output. The first message is the template, all
others are chats; each is answered before the next is read. It ends when its input does, which is when the server has
closed it or is gone, and is ended by the kernel when a message takes more time than the server gives it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mlx_grpc.service.intake.templates import frames
from mlx_grpc.service.intake.templates.chat_template import ChatTemplate
from mlx_grpc.service.intake.templates.environment import JinjaTemplate
from mlx_grpc.service.intake.templates.frames import Message
from mlx_grpc.service.intake.templates.limits import confine, processor_seconds
from mlx_grpc.service.intake.templates.traits import plain_traits, traits_of_plain

NICENESS = 1
"""The server's event loop goes first."""
SESSION_NICENESS = Path("/proc/self/autogroup"), 5
"""Linux on a desktop shares the processor among sessions, whatever the niceness within each. This process has a session
of its own, which would get as much as the server's."""


def main() -> int:
    """Answer until there is nothing more to read; returns the exit code."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the server alone decides
        signal.signal(ignored, signal.SIG_IGN)
    source, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    _give_way()
    first = _read(source)
    if first is None:
        return 0
    memory_bytes = first.fields["memory_bytes"]
    confine(memory_bytes)
    try:
        with processor_seconds(first.fields["seconds"]):
            template = _template(first)
            answer = frames.pack({"traits": plain_traits(template.traits)})
    except MemoryError:
        _write(answers, frames.pack({"stopped": _too_much(memory_bytes)}))
        return 1
    _write(answers, answer)
    while (request := _read(source)) is not None:
        with processor_seconds(request.fields["seconds"]):
            answer = _answer(template, request, memory_bytes)
        _write(answers, answer)
    return 0


def _give_way() -> None:
    os.nice(NICENESS)
    path, niceness = SESSION_NICENESS
    with contextlib.suppress(OSError):  # not there, or changed by another process a moment ago
        path.write_text(str(niceness))


def _template(first: Message) -> ChatTemplate:
    (source,) = first.texts
    known = first.fields["traits"]
    render = JinjaTemplate(source, first.fields["special_tokens"])
    return ChatTemplate(render, traits=None if known is None else traits_of_plain(known))


def _answer(template: ChatTemplate, request: Message, memory_bytes: int) -> list[bytes]:
    """The rendered chat, or why there is none. After a lack of memory this process is not to be used again: what it
    holds may be in pieces."""
    try:
        args_json, *contents = request.texts
        turns = list(zip(request.fields["roles"], contents, strict=True))
        written = template.write(turns, args_json, request.fields["continued"])
        if len(written.text) <= frames.MAX_RENDERED_CHARS:
            fields = {"lost": written.lost, "error": written.error, "stopped": written.stopped}
            return frames.pack(fields, [written.text])
        stopped, worn = f"it writes more than {frames.MAX_RENDERED_CHARS} characters", False
    except MemoryError:
        stopped, worn = _too_much(memory_bytes), True
    return frames.pack({"stopped": stopped, "worn": worn})


def _too_much(memory_bytes: int) -> str:
    return f"it takes more than {memory_bytes // 1024**2} MiB of memory"


def _read(source: BinaryIO) -> Message | None:
    """The next message; None at the end of the input."""
    header = source.read(frames.HEADER_BYTES)
    if len(header) < frames.HEADER_BYTES:
        return None
    length = frames.body_bytes(header)
    body = source.read(length)
    return frames.unpack(body) if len(body) == length else None


def _write(answers: int, frame: Sequence[bytes]) -> None:
    for part in frame:
        view = memoryview(part)
        while view:
            view = view[os.write(answers, view) :]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the server has gone
        os._exit(1)
