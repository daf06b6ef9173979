"""`python -m mlx_grpc.testing`: the server that tests in other languages start, and its commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_grpc.client import Client
from tests.conformance.helper_program import CommandRefused, helper_program
from tests.helpers.tools import PATIENCE_SECONDS, ROOT

COMMAND = (sys.executable, "-m", "mlx_grpc.testing")


def start(*arguments: str) -> subprocess.Popen[str]:
    """The program, its line not yet read."""
    return subprocess.Popen((*COMMAND, *arguments), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_ready_file_says_what_the_line_says(tmp_path: Path) -> None:
    """Addresses and the process id, and calls are taken."""
    path = tmp_path / "ready.json"
    with start("--ready-file", str(path), "--script", '{"replies": {"ping": "pong"}}') as program:
        assert program.stdout is not None
        facts = json.loads(program.stdout.readline())
        assert facts == json.loads(path.read_text(encoding="utf-8"))
        assert facts["pid"] == program.pid
        with Client(facts["grpc"]) as client:
            assert client.generate("ping").text == "pong"
        program.communicate(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_it_ends_with_whoever_started_it(end: str) -> None:
    """When its standard input closes, and on SIGTERM."""
    with start("--engine", "process") as program:
        assert program.stdout is not None
        assert program.stdin is not None
        program.stdout.readline()
        if end == "close":
            program.stdin.close()
        else:
            program.send_signal(signal.SIGTERM)
        assert program.wait(PATIENCE_SECONDS) == 0


def test_a_script_that_cannot_be() -> None:
    """One line, and exit code 2."""
    done = subprocess.run(
        (*COMMAND, "--script", '{"replies": 7'), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("--script: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "body", "words"),
    [
        ("server", {"script": {"replys": {}}}, "replys"),
        ("server", {"settings": {"max_que": 1}}, "max_que"),
        ("wait", {"for": "rows", "at_least": 1}, "active_rows"),
        ("kill-engine", {}, "process"),
        ("cancel", {"request_id": "none"}, "none"),
    ],
)
def test_a_command_that_cannot_be(command: str, body: object, words: str) -> None:
    """The answer says what is wrong."""
    with helper_program() as helper, pytest.raises(CommandRefused, match=words):
        helper.post(command, body)
