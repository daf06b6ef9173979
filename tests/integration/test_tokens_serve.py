"""The command line: `serve` refuses what it must not serve, and the client's commands work with TLS and tokens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.cli.app import main
from tests.helpers.auth import Authority, TlsFolder, TokenFolder
from tests.helpers.serve import script, started

SCRIPT = testing.Script(replies={"ping": "pong"})


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


def refused(*arguments: str) -> str:
    """The one line of a server that does not start."""
    with started("--model", script(), *arguments) as serve:
        assert serve.ended() == 2, serve.errors
        assert serve.process.stdout is not None
        assert serve.process.stdout.read() == ""
        (line,) = serve.errors
    return line


def test_other_machines_are_not_served_without_tls_and_tokens() -> None:
    """One line and exit code 1; nothing has listened."""
    assert refused("--host", "0.0.0.0") == (
        "mlx-grpc: --host 0.0.0.0 can be reached from other machines without --tls-cert and --tls-key and --tokens; "
        "give them, or say --insecure"
    )


def test_insecure_serves_them_and_warns() -> None:
    """The log says what is open."""
    with started("--model", script(), "--admin-host", "0.0.0.0", "--insecure") as serve:
        serve.serving_line()
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        (warning,) = [line for line in serve.errors if "WARNING" in line]
    assert "--insecure: --admin-host 0.0.0.0 can be reached from other machines" in warning


def test_bad_files_are_one_line(tmp_path: Path, ours: Authority) -> None:
    """A token file with a bad line, and a key of another certificate."""
    tokens, files = tmp_path / "tokens", TlsFolder(tmp_path, ours.issue())
    tokens.write_text("# mine\nalice:generate:abc\n")
    assert refused("--tokens", str(tokens)).startswith(f"mlx-grpc: token file {tokens}, line 2: the hash")
    files.key.write_bytes(ours.issue().key)
    assert "is not that of certificate" in refused("--tls-cert", str(files.cert), "--tls-key", str(files.key))


def test_tls_and_tokens_serve_other_machines(tmp_path: Path, ours: Authority) -> None:
    """The SERVING line says https, and no warning is given."""
    tokens, files = TokenFolder(tmp_path), TlsFolder(tmp_path, ours.issue())
    flags = ("--tokens", str(tokens.path), "--tls-cert", str(files.cert), "--tls-key", str(files.key))
    with started("--model", script(), "--host", "0.0.0.0", *flags) as serve:
        assert serve.serving_line().count("https://0.0.0.0:") == 1
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        assert not [line for line in serve.errors if "WARNING" in line]


def test_the_clients_commands_take_tls_and_tokens(tmp_path: Path, ours: Authority) -> None:
    """With an authority of one's own by grpc's variable for it; without a token the line says what to do."""
    tokens, files, roots = TokenFolder(tmp_path), TlsFolder(tmp_path, ours.issue()), tmp_path / "roots.pem"
    roots.write_bytes(ours.pem)
    environment = os.environ | {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots)}
    with testing.run(SCRIPT, tokens=tokens.path, **files.settings) as server:
        command = [sys.executable, "-m", "mlx_grpc", "generate", "ping", "--tls", "--target", server.target]
        told = subprocess.run(
            [*command, "--token", tokens.generate], env=environment, capture_output=True, text=True, check=False
        )
        assert (told.returncode, told.stdout.strip()) == (0, "pong"), told.stderr
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (told.returncode, "--token or MLX_GRPC_TOKEN" in told.stderr) == (1, True), told.stderr


@pytest.mark.parametrize("admin", [False, True])
def test_the_token_command_makes_what_serve_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], admin: bool
) -> None:
    """Two lines: the token for the client, the line for the file."""
    assert main(["token", "alice", *(["--admin"] if admin else [])]) == 0
    token, line = capsys.readouterr().out.splitlines()
    path = tmp_path / "tokens"
    path.write_text(line)
    with testing.run(SCRIPT, tokens=path) as server:
        assert main(["generate", "ping", "--target", server.target, "--token", token]) == 0
    assert line.split(":")[:2] == ["alice", "admin" if admin else "generate"]


def test_a_name_that_cannot_be_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    assert main(["token", "a:b"]) == 2
    assert "name" in capsys.readouterr().err
