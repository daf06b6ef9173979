"""The server's listeners, from the command line: addresses, ports in use, the end by the admin port."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PORTS = ("--grpc-port", "--http-port", "--admin-port")


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`mlx-grpc serve` with the scripted model; killed at the end where it still runs."""
    ports = [part for flag in PORTS if flag not in arguments for part in (flag, "0")]
    with subprocess.Popen(
        [sys.executable, "-m", "mlx_grpc", "serve", "--model", "scripted=script:{}", *ports, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_all_addresses_are_told(tmp_path: Path) -> None:
    """On standard output and in the ready file, and a drain by the admin port ends the server with 0."""
    ready_file = tmp_path / "ready.json"
    with command("--ready-file", str(ready_file)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        facts = json.loads(ready_file.read_text())
        host, _, port = facts["admin"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port))
        connection.request("POST", "/admin/drain")
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert (answer.status, process.wait()) == (202, 0), body
    assert set(facts) == {"grpc", "http", "admin", "pid"}
    assert re.fullmatch(r"mlx-grpc \S+ SERVING .*\n", line)
    assert all(facts[name] in line for name in ("grpc", "http", "admin"))
    assert not ready_file.exists()


@pytest.mark.parametrize("flag", PORTS)
def test_a_port_in_use_is_one_line(flag: str) -> None:
    """Which port, and what to do; exit code 1, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command(flag, str(port)) as process:
            _, errors = process.communicate()
    wanted = f"mlx-grpc: port {port} on 127.0.0.1 is in use; choose another with {flag}, or 0 for any"
    assert [line for line in errors.splitlines() if line.startswith("mlx-grpc:")] == [wanted]
    assert (process.returncode, "Traceback" in errors) == (1, False)


def test_the_log_is_json_by_flag(tmp_path: Path) -> None:
    """Every line on standard error, from start to end."""
    with command("--log-json", "--ready-file", str(tmp_path / "ready")) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, errors = process.communicate()
    lines = [json.loads(line) for line in errors.splitlines()]
    assert lines[-1]["message"] == "stopped"
    assert all({"time", "level", "logger"} <= line.keys() for line in lines)
