"""`mlx-grpc bench` against whole servers with the scripted model, over gRPC and over HTTP, and against broken ones."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.bench.over_http import HttpDriver
from mlx_grpc.bench.record import Ask, Record
from mlx_grpc.cli.app import main
from mlx_grpc.testing import Fault, Script

Captured = pytest.CaptureFixture[str]
SMALL = ["--mix", "8:4", "--requests", "6", "--warmup", "1"]


def test_grpc_gives_table_json_and_picture(tmp_path: Path) -> None:
    """A row and a JSON object for each load, closed and open; every token that was asked for; a PNG."""
    files = {"--json": tmp_path / "a.json", "--png": tmp_path / "a.png"}
    flags = [str(part) for pair in files.items() for part in pair]
    command = [sys.executable, "-m", "mlx_grpc", "bench", *SMALL, "--streams", "1,3", "--rate", "200", *flags]
    with testing.run() as server:  # and the command in a process of its own: matplotlib keeps its fonts open
        done = subprocess.run([*command, "--target", server.target], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows[1:]] == [["1 stream", "6", "0"], ["3 streams", "6", "0"], ["200/s", "6", "0"]]
    runs = json.loads(files["--json"].read_text())["runs"]
    assert [run["completion_tokens"] for run in runs] == [24, 24, 24]
    assert [run["arrivals_per_second"] for run in runs] == [None, None, 200]
    assert all(run["first_seconds"]["p50"] > 0 for run in runs)
    assert files["--png"].read_bytes().startswith(b"\x89PNG")


def test_http_gives_the_same_measures(tmp_path: Path) -> None:
    """Over the bridge, as over any OpenAI-compatible server."""
    file = tmp_path / "a.json"
    with testing.run() as server:
        assert main(["bench", "--http", server.http_url, *SMALL, "--streams", "2", "--json", str(file)]) == 0
    (run,) = json.loads(file.read_text())["runs"]
    assert (run["requests"], run["failures"], run["completion_tokens"]) == (6, {}, 24)
    assert run["prompt_tokens"] > 0
    assert run["first_seconds"]["p99"] > 0


def test_new_connections_are_one_for_each_request(tmp_path: Path) -> None:
    """And all are served."""
    file = tmp_path / "a.json"
    with testing.run() as server:
        flags = ["--new-connections", "--streams", "6", "--json", str(file)]
        assert main(["bench", "--target", server.target, *SMALL, *flags]) == 0
    assert json.loads(file.read_text())["runs"][0]["failures"] == {}


def test_failures_are_counted_by_code(capsys: Captured, tmp_path: Path) -> None:
    """The rows that the script fails, by gRPC's code; none of them makes the command fail while others succeed."""
    script, file = Script(faults=[Fault(text="oo", action="fail")]), tmp_path / "a.json"
    with testing.run(script) as server:
        flags = ["--mix", "8:4", "--requests", "40", "--streams", "4", "--json", str(file)]
        assert main(["bench", "--target", server.target, *flags]) == 0
    (run,) = json.loads(file.read_text())["runs"]
    assert 0 < sum(run["failures"].values()) < 40
    assert all(code.startswith("INTERNAL") for code in run["failures"])
    assert "4 streams: " in capsys.readouterr().err


def test_nobody_there_fails(capsys: Captured) -> None:
    """Exit code 1 and the server's name, over either protocol."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    for flags in (["--target", address], ["--http", f"http://{address}"]):
        assert main(["bench", *flags, *SMALL, "--streams", "2"]) == 1
    said = capsys.readouterr().err
    assert said.count("no request succeeded") == 2
    assert "UNAVAILABLE" in said
    assert "connection refused" in said


@pytest.mark.parametrize(
    "flags",
    [
        ["--mix", "x"],
        ["--streams", "0"],
        ["--streams", "1.5"],
        ["--rate", "a"],
        ["--http", "localhost"],
        ["--tls", "--http", "http://h"],
        ["--new-connections", "--http", "http://h"],
    ],
)
def test_what_cannot_be_is_usage(flags: list[str], capsys: Captured) -> None:
    """Exit code 2, and the flag's name."""
    assert main(["bench", *flags]) == 2
    assert flags[0].strip("-") in capsys.readouterr().err


def test_a_picture_without_matplotlib_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """One line that says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "--png", "a.png"]) == 1
    assert "pip install 'mlx-grpc[bench]'" in capsys.readouterr().err


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """An HTTP server for one request, which says these bytes and closes."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            got = b""
            while not got.endswith(b"}"):
                got += connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
WORD = b'data: {"choices": [{"text": "hi", "finish_reason": null}]}\n\n'
END = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\n'


@pytest.mark.parametrize(
    ("answer", "failure", "text"),
    [
        (OK + b"\r\n" + WORD + b": keepalive 1/2\n\n" + WORD + b"data: [DONE]\n\n", "", "hihi"),
        (OK + b"\r\n" + WORD + END, "", "hi"),
        (OK + b"\r\n" + WORD, "ended early", "hi"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\ndat\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(WORD) - 3, WORD[3:]),
         "ended early", "hi"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + WORD, "ended early", ""),
        (OK + b"Content-Length: 99\r\n\r\n" + WORD, "ended early", ""),
        (OK + b"\r\ndata: {\"error\": {\"message\": \"no\"}}\n\n", "error in the stream", ""),
        (OK + b"\r\ndata: {\n\n", "bad answer", ""),
        (OK + b"\r\ndata: []\n\n", "bad answer", ""),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "bad answer", ""),
        (b"HTTP/1.0 503 Busy\r\nContent-Length: 0\r\n\r\n", "HTTP 503", ""),
        (b"SSH-2.0\r\n", "bad answer", ""),
        (b"", "connection reset", ""),
    ],
)  # fmt: skip
def test_http_answers_of_every_kind(answer: bytes, failure: str, text: str) -> None:
    """What was wrong with an answer is one of few codes, and what came before is kept."""
    record = Record(0.0)
    with answering(answer) as url:
        asyncio.run(HttpDriver(url, timeout_seconds=30).ask(Ask("hello"), record))
    assert (record.failure, record.text) == (failure, text)
    assert len(record.deliveries) == len(text) // 2
    assert record.ended_seconds > 0.0


def test_a_slow_server_is_a_timeout() -> None:
    """Counted as such; the connection is closed."""
    record = Record(0.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        asyncio.run(HttpDriver(url, timeout_seconds=0.05).ask(Ask("hello"), record))
    assert record.failure == "timeout"
