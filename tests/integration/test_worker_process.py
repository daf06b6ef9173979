"""The worker's process: how it ends, and that it always does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_grpc.engine.messages import FRAME_HEADER_BYTES, Submit
from mlx_grpc.engine.scripted.script import Fault, Script
from tests.helpers.worker import PATIENCE_SECONDS, ChildWorker, generate, load, next_step, row, started

# Starts a worker as a server does, hangs it in a step, tells the worker's pid, and waits to be killed.
PARENT = """
import sys, threading
from tests.helpers.worker import *
from mlx_grpc.engine.scripted.script import Fault, Script
from mlx_grpc.engine.messages import Submit
worker = ChildWorker()
load(worker, Script(faults=[Fault("hang", "hang")]))
worker.send(Submit([row(1, "hang" if sys.argv[1] == "hang" else "idle", 1)]))
next_step(worker)
print(worker.process.pid, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def worker() -> Iterator[ChildWorker]:
    """A child process that has loaded nothing yet."""
    with started(ChildWorker) as worker:
        assert isinstance(worker, ChildWorker)
        yield worker


def wait_for_end(pid: int) -> bool:
    """Whether the process, which is not ours to reap, has ended; waits for it."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_SECONDS)[0])
    finally:
        os.close(descriptor)


def test_it_ends_cleanly_when_its_inbox_closes(worker: ChildWorker) -> None:
    """Exit code 0, with rows in the batch too."""
    load(worker, Script(step_seconds=0.01))
    worker.send(Submit([row(1, "a", 100_000)]))
    next_step(worker)
    worker.close_inbox()
    assert worker.process.wait(PATIENCE_SECONDS) == 0


def test_it_does_not_import_mlx_for_a_script() -> None:
    """The scripted model needs neither MLX nor mlx_lm."""
    code = (
        "import sys, mlx_grpc.engine.worker.open as w, mlx_grpc.engine.messages as m;"
        "w.open_engine(m.Load('script:', 1));"
        "sys.exit(any(name.partition('.')[0] in ('mlx', 'mlx_lm') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_do_not_end_it(worker: ChildWorker, signal_number: int) -> None:
    """The server decides when its engine ends."""
    load(worker, Script())
    worker.process.send_signal(signal_number)
    assert len(generate(worker, row(1, "a", 3))[1]) == 3


def test_a_frame_that_does_not_parse_ends_it() -> None:
    """As a closed inbox does, and stderr says why: the two sides no longer understand each other."""
    with tempfile.TemporaryFile() as stderr, started(lambda: ChildWorker(stderr)) as worker:
        assert isinstance(worker, ChildWorker)
        load(worker, Script())
        worker.send_bytes((1).to_bytes(FRAME_HEADER_BYTES, "big") + b"\xc1")
        assert worker.ended()
        worker.process.wait(PATIENCE_SECONDS)
        stderr.seek(0)
        assert b"not a message" in stderr.read()


def test_an_abort_in_a_step_ends_it_by_its_signal(worker: ChildWorker) -> None:
    """The poison row's death is seen as SIGABRT, after the tokens before it."""
    load(worker, Script(faults=[Fault("poison", "abort", at_output=1)]))
    worker.send(Submit([row(1, "poison", 9)]))
    next_step(worker)
    assert len(next_step(worker).tokens) == 1
    assert worker.ended()
    assert worker.process.wait(PATIENCE_SECONDS) == -signal.SIGABRT


def test_a_fault_with_a_once_path_happens_once(tmp_path: Path) -> None:
    """The first child aborts, the second serves the same row."""
    script = Script(faults=[Fault("poison", "abort", once_path=str(tmp_path / "happened"))])
    with started(ChildWorker) as first:
        assert isinstance(first, ChildWorker)
        load(first, script)
        first.send(Submit([row(1, "poison", 2)]))
        next_step(first)
        assert first.ended()
    with started(ChildWorker) as second:
        load(second, script)
        assert len(generate(second, row(1, "poison", 2))[1]) == 2


def test_a_child_that_allocates_is_killed(worker: ChildWorker) -> None:
    """It ends by SIGKILL, as one that the kernel kills for its memory."""
    load(worker, Script(faults=[Fault("eat", "allocate", limit_bytes=1 << 28)]))
    worker.send(Submit([row(1, "eat", 2)]))
    next_step(worker)
    assert worker.ended()
    assert worker.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def test_an_error_of_a_step_ends_it_with_a_traceback() -> None:
    """Exit code 1, and stderr says where."""
    with tempfile.TemporaryFile() as stderr, started(lambda: ChildWorker(stderr)) as worker:
        assert isinstance(worker, ChildWorker)
        load(worker, Script(faults=[Fault("bad", "error")]))
        worker.send(Submit([row(1, "bad", 2)]))
        next_step(worker)
        assert worker.ended()
        assert worker.process.wait(PATIENCE_SECONDS) == 1
        stderr.seek(0)
        assert b"Traceback" in stderr.read()


def test_a_fifo_gates_the_steps(worker: ChildWorker, tmp_path: Path) -> None:
    """Each byte written into the FIFO is one step."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    load(worker, Script(gate_path=str(gate)))
    with gate.open("r+b", buffering=0) as steps:
        worker.send(Submit([row(1, "a", 2)]))
        steps.write(b"..")
        assert [len(next_step(worker).tokens), len(next_step(worker).tokens)] == [0, 1]
        assert not select.select([worker.outbox_fd], [], [], 0)[0]
        steps.write(b".")
        assert next_step(worker).active_rows == 0


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
@pytest.mark.parametrize("state", ["idle", "hang"])
def test_no_orphan_is_left_when_the_server_is_killed(state: str) -> None:
    """The server dies by SIGKILL while the child is idle, and while it hangs in a step: the child ends."""
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, state],
        cwd=root,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        assert wait_for_end(child)
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()
