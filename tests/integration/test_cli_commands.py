"""The commands against a real server: what they print, and their exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_grpc import __version__, errors
from mlx_grpc.cli.app import main
from mlx_grpc.v1 import chat_pb2
from tests.helpers.client import PATIENCE_SECONDS, Scripted, fails, scripted_server

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """A scripted server that the commands find through the environment."""
    with scripted_server() as server:
        monkeypatch.setenv("MLX_GRPC_TARGET", server.address)
        yield server


def test_generate_streams_the_text(server: Scripted, capsys: Captured) -> None:
    """The text, a line end, and exit code 0; the flags reach the request."""
    assert main(["generate", "hi", "--max-tokens", "5", "--temperature", "0.5", "--stop", "a", "--stop", "b"]) == 0
    assert capsys.readouterr().out == "Hello you\n"
    request = server.requests[0]
    assert (request.prompt, request.stop.max_tokens, request.sampling.temperature) == ("hi", 5, 0.5)
    assert list(request.stop.stop_strings) == ["a", "b"]


def test_generate_reads_stdin(server: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Without its last line end, which the shell put there."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("two\nlines\n"))
    assert main(["generate"]) == 0
    assert server.requests[0].prompt == "two\nlines"
    assert capsys.readouterr().out


def test_a_system_message_makes_it_a_chat(server: Scripted) -> None:
    """System first, then the prompt as the user's turn."""
    assert main(["generate", "hi", "--system", "be brief"]) == 0
    roles = [message.role for message in server.requests[0].chat.messages]
    assert roles == [chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER]


def test_raw_and_system_contradict(server: Scripted, capsys: Captured) -> None:
    """Usage, with the flag's name; nothing is sent."""
    assert main(["generate", "hi", "--system", "x", "--raw"]) == 2
    assert "--system" in capsys.readouterr().err
    assert server.calls == 0


def test_generate_json(server: Scripted, capsys: Captured) -> None:
    """One event a line."""
    assert main(["generate", "hi", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["started", "delta", "delta", "delta", "finished", "completed"]
    assert server.requests[0].output.token_ids


def test_an_error_is_one_line_on_stderr(server: Scripted, capsys: Captured) -> None:
    """After what was streamed, on a line of its own; exit code 1."""
    server.handler = fails(errors.SlowReader("you read too slowly"), after=2)
    assert main(["generate", "hi"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("Hel\n", "mlx-grpc: you read too slowly\n")


def test_nobody_there(capsys: Captured) -> None:
    """Says what to start, and exits with 1."""
    with scripted_server() as gone:
        address = gone.address
    assert main(["status", "--target", address]) == 1
    error = capsys.readouterr().err
    assert f"no server answers at {address}: start one with `mlx-grpc serve`" in error
    assert error.count("\n") == 1


def test_the_token_flag(server: Scripted) -> None:
    """--token is sent as a bearer token."""
    assert main(["generate", "hi", "--token", "secret"]) == 0
    assert server.metadata[0]["authorization"] == "Bearer secret"


def test_status_is_plain_text(server: Scripted, capsys: Captured) -> None:
    """Health, version, and a line for each model."""
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "process serving" in lines[0]
    assert "1.2.3" in lines[1]
    assert [line.split("\t")[:2] for line in lines[-3:]] == [["a", "ready"], ["b", "ready"], ["c", "ready"]]


def test_status_json(server: Scripted, capsys: Captured) -> None:
    """The same, for programs."""
    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["health"][""] == "serving"
    assert status["info"]["limits"]["max_queue"] == 4
    assert [model["id"] for model in status["models"]] == ["a", "b", "c"]


def test_a_servers_models(server: Scripted, capsys: Captured) -> None:
    """models list --server."""
    assert main(["models", "list", "--server"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["ID", "a", "b", "c"]


def test_models_of_an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A table without rows, and an error that names the model that is not there."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("MLX_GRPC_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["models", "remove", "nothing"]) == 1
    assert "no model 'nothing' here" in capsys.readouterr().err
    assert main(["models", "pull", "./nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_chat_from_a_pipe(server: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A script can talk: a line a turn, the answers so far sent along, /clear forgets them."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\ntwo\n/clear\nthree\n/exit\nfour\n"))
    assert main(["chat", "--system", "be brief"]) == 0
    assert capsys.readouterr().out == "Hello you\n" * 3
    said = [[message.content[0].text for message in request.chat.messages] for request in server.requests]
    assert said == [["be brief", "one"], ["be brief", "one", "Hello you", "two"], ["be brief", "three"]]


def test_chat_goes_on_after_an_error(server: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A question that got no answer is forgotten, so that the turns still alternate."""
    server.handler = fails(errors.InvalidField("chat: too long", field="chat"), times=1)
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert main(["chat"]) == 0
    captured = capsys.readouterr()
    assert "too long" in captured.err
    assert "Hello you" in captured.out
    assert [len(request.chat.messages) for request in server.requests] == [1, 1]


def test_a_bad_option_for_every_turn_ends_the_chat(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """It would fail each time."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert main(["chat", "--max-tokens", "-1"]) == 1
    assert "stop.max_tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["generate", "--nonsense"], ["status", "extra"], ["status", "--target", ""]]
)
def test_usage_errors(arguments: list[str], capsys: Captured) -> None:
    """One line that points to the help, and exit code 2."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "--help" in error
    assert error.count("\n") == 1


def test_python_m_is_the_same() -> None:
    """With the version, and with an exit code of its own."""
    command = [sys.executable, "-m", "mlx_grpc"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.stdout, done.returncode) == (f"mlx-grpc {__version__}\n", 0)
    assert subprocess.run([*command, "nonsense"], capture_output=True, timeout=PATIENCE_SECONDS).returncode == 2


def test_a_closed_pipe_is_no_traceback(server: Scripted) -> None:
    """`mlx-grpc generate | head -0`: ends with 1 and says nothing."""
    command = [sys.executable, "-m", "mlx_grpc", "generate", "hi", "--target", server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, error = process.communicate(timeout=PATIENCE_SECONDS)
    assert (error, process.returncode) == ("", 1)
