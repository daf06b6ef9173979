"""The commands on a terminal: a real pseudo-terminal, whose Ctrl-C is a real SIGINT."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.client import PATIENCE_SECONDS, Scripted, answers, delta, never_ends, scripted_server, started

CTRL_C, CTRL_D = "\x03", "\x04"

# Makes the terminal on its stdin its own, as a shell would, and becomes the command.
BECOME = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "mlx_grpc", *sys.argv[1:]])
"""


class Terminal:
    """What a person would see and type."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self._process = process
        self._seen = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def expect(self, words: str, press_again: str = "") -> str:
        """Reads until the words are there; gives what was seen up to their end.

        `press_again` is typed whenever nothing comes for a second. A signal that arrives between readline's drawing
        of the prompt and its waiting is seen only with the next key, so a person presses Ctrl-C again.
        """
        attempts = int(PATIENCE_SECONDS)
        while words not in self._seen:
            readable, _, _ = select.select([self._master], [], [], 1.0)
            if not readable:
                attempts -= 1
                assert attempts, f"waited for {words!r}, saw {self._seen!r}"
                self.type(press_again)
                continue
            try:
                self._seen += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # Linux: the other side is closed
                pytest.fail(f"the program ended before {words!r}; saw {self._seen!r}")
        before, _, self._seen = self._seen.partition(words)
        return before + words

    def exit_code(self) -> int:
        return self._process.wait(PATIENCE_SECONDS)


@contextmanager
def terminal(arguments: list[str], home: Path, kind: str = "dumb") -> Iterator[Terminal]:
    """`mlx-grpc` with these arguments on a terminal of its own."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": kind, "HOME": str(home), "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", BECOME, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        os.close(master)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as server:
        yield server


def first_never_ends(server: Scripted, request: Any, context: Any) -> Iterator[Any]:
    yield from (never_ends if server.calls == 1 else answers)(server, request, context)


def test_ctrl_c_stops_the_answer_and_not_the_program(server: Scripted, tmp_path: Path) -> None:
    """The call is gone on the server, the part that was said is kept, and the next question is answered."""
    server.handler = first_never_ends
    with terminal(["chat", "--target", server.address], tmp_path) as screen:
        screen.expect("> ")
        screen.type("tell me\n")
        screen.expect("Once upon a time")
        screen.type(CTRL_C)
        assert server.call_done.wait(PATIENCE_SECONDS)
        screen.expect("> ")
        screen.type("go on\n")
        screen.expect("Hello you")
        screen.expect("> ")
        screen.type(CTRL_D)
        assert screen.exit_code() == 0
    texts = [message.content[0].text for message in server.requests[1].chat.messages]
    assert texts == ["tell me", "Once upon a time", "go on"]


def test_ctrl_c_at_the_prompt_ends_nothing(server: Scripted, tmp_path: Path) -> None:
    """The half-typed line is dropped; /exit ends."""
    with terminal(["chat", "--target", server.address], tmp_path) as screen:
        screen.expect("> ")
        screen.type("half a li")
        screen.expect("half a li")
        screen.type(CTRL_C)
        screen.expect("> ", press_again=CTRL_C)
        screen.type("/exit\n")
        assert screen.exit_code() == 0
    assert server.calls == 0


def test_ctrl_c_ends_generate(server: Scripted, tmp_path: Path) -> None:
    """With one line and exit code 1; the call is gone on the server."""
    server.handler = never_ends
    with terminal(["generate", "hi", "--target", server.address], tmp_path) as screen:
        screen.expect("Once upon a time")
        screen.type(CTRL_C)
        screen.expect("mlx-grpc: interrupted")
        assert screen.exit_code() == 1
    assert server.call_done.wait(PATIENCE_SECONDS)


def test_a_models_escapes_do_not_reach_the_terminal(server: Scripted, tmp_path: Path) -> None:
    """The text of an escape sequence is shown, the escape is not."""

    def escapes(server: Scripted, request: Any, context: Any) -> Iterator[Any]:
        yield from (started(), delta("\x1b]0;title\x07done"))

    server.handler = escapes
    with terminal(["generate", "hi", "--target", server.address], tmp_path) as screen:
        assert "\x1b" not in screen.expect("done")


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_status_watches_until_ctrl_c(server: Scripted, tmp_path: Path, kind: str) -> None:
    """Live, or again and again where nothing can be redrawn: a model that comes is seen; leaving is no failure."""
    arguments = ["status", "--watch", "--interval-seconds", "0.1", "--target", server.address]
    with terminal(arguments, tmp_path, kind) as screen:
        screen.expect("ready")
        server.models.append("newcomer")
        screen.expect("newcomer")
        screen.type(CTRL_C)
        assert screen.exit_code() == 0
