"""A worker for tests, in a thread or in a real child process: the same calls for both."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import msgspec

from mlx_grpc.engine.messages import (
    FRAME_HEADER_BYTES,
    Close,
    FromWorker,
    Load,
    Loaded,
    Row,
    RowToken,
    SamplingParams,
    Step,
    StepBegan,
    Submit,
    ToWorker,
    decode_from_worker,
    encode,
)
from mlx_grpc.engine.protocol import OpenEngine
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.engine.scripted.script import encode as encode_text
from mlx_grpc.engine.worker.loop import run
from mlx_grpc.engine.worker.open import open_engine

PATIENCE_SECONDS = 60.0


class Worker(Protocol):
    """The server's end of a worker."""

    def send(self, message: ToWorker) -> None:
        """Put a message into its inbox."""

    def receive(self) -> FromWorker:
        """Its next message. Fails when none comes."""


class ThreadWorker:
    """`run` in a thread, with queues."""

    def __init__(self, opener: OpenEngine = open_engine) -> None:
        self.inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self.outbox: queue.SimpleQueue[FromWorker] = queue.SimpleQueue()
        self.thread = threading.Thread(target=run, args=(self.inbox, self.outbox.put, opener))
        self.thread.start()

    def send(self, message: ToWorker) -> None:
        self.inbox.put(message)

    def receive(self) -> FromWorker:
        return self.outbox.get(timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        self.inbox.put(Close())
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()


class ChildWorker:
    """`python -m mlx_grpc.engine.worker.loop` with pipes. `outbox_fd` is what its messages are read from."""

    def __init__(self, stderr: BinaryIO | int | None = None) -> None:
        child_in, self._to_child = os.pipe()
        self.outbox_fd, child_out = os.pipe()
        command = [sys.executable, "-m", "mlx_grpc.engine.worker"]
        command += ["--in-fd", str(child_in), "--out-fd", str(child_out)]
        self.process = subprocess.Popen(
            command, pass_fds=(child_in, child_out), stdin=subprocess.DEVNULL, stderr=stderr
        )
        os.close(child_in)
        os.close(child_out)

    def send(self, message: ToWorker) -> None:
        self.send_bytes(encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Write into its pipe; what the tests send is short enough for one write."""
        assert os.write(self._to_child, data) == len(data)

    def receive(self) -> FromWorker:
        header = self._read(FRAME_HEADER_BYTES)
        return decode_from_worker(self._read(int.from_bytes(header, "big")))

    def ended(self) -> bool:
        """Whether the child's end of the pipe is closed; waits for that or for a message."""
        assert select.select([self.outbox_fd], [], [], PATIENCE_SECONDS)[0], "the worker says nothing"
        return os.read(self.outbox_fd, 1) == b""

    def close_inbox(self) -> None:
        """What the child sees when the server dies."""
        if self._to_child >= 0:
            os.close(self._to_child)
            self._to_child = -1

    def close(self) -> None:
        self.close_inbox()
        try:
            self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.outbox_fd)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            assert select.select([self.outbox_fd], [], [], PATIENCE_SECONDS)[0], "the worker says nothing"
            part = os.read(self.outbox_fd, count - len(data))
            if not part:
                raise EOFError("the worker has ended")
            data += part
        return data


@contextlib.contextmanager
def started(kind: Callable[[], ThreadWorker | ChildWorker]) -> Iterator[ThreadWorker | ChildWorker]:
    """A worker that is closed at the end."""
    worker = kind()
    try:
        yield worker
    finally:
        worker.close()


def load(worker: Worker, path: str | Script, max_rows: int = 16, prefill_step_tokens: int = 0, **more: Any) -> Loaded:
    """Load a folder or a script; the worker must answer Loaded. `more` are other fields of Load."""
    if isinstance(path, Script):
        path = "script:" + msgspec.json.encode(path).decode()
    worker.send(Load(path, max_rows, prefill_step_tokens, **more))
    answer = worker.receive()
    assert isinstance(answer, Loaded), answer
    return answer


def row(row_id: int, prompt: str | list[int], max_tokens: int = 8, **settings: object) -> Row:
    """A row with neutral settings. `settings` are other fields of Row, or of its SamplingParams."""
    tokens = encode_text(prompt) if isinstance(prompt, str) else prompt
    fields = {name: settings.pop(name) for name in list(settings) if name in Row.__struct_fields__}
    defaults: dict[str, object] = {"output": [], "min_tokens": 0, "stop_ids": []}
    sampling = SamplingParams(**settings)  # type: ignore[arg-type]
    return Row(row_id=row_id, prompt=tokens, max_tokens=max_tokens, sampling=sampling, **defaults | fields)  # type: ignore[arg-type]


def next_step(worker: Worker) -> Step:
    """The next message, which must be a step, or say that a long one has begun."""
    while isinstance(message := worker.receive(), StepBegan):
        pass
    assert isinstance(message, Step), message
    return message


def steps_until_idle(worker: Worker) -> list[Step]:
    """All steps up to the one that leaves no row active."""
    steps = [next_step(worker)]
    while steps[-1].active_rows:
        steps.append(next_step(worker))
    return steps


def tokens_by_row(steps: list[Step]) -> dict[int, list[int]]:
    """Each row's tokens, in order."""
    rows: dict[int, list[int]] = {}
    for token in row_tokens(steps):
        rows.setdefault(token.row_id, []).append(token.token)
    return rows


def row_tokens(steps: list[Step]) -> list[RowToken]:
    """All tokens of these steps."""
    return [token for step in steps for token in step.tokens]


def generate(worker: Worker, *rows: Row) -> dict[int, list[int]]:
    """Submit rows together, and wait until all have ended."""
    worker.send(Submit(list(rows)))
    return tokens_by_row(steps_until_idle(worker))
