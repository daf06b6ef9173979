"""Text that clients, models and files bring along: in the log it stays one printable line, and it cannot fill it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from mlx_grpc.client import Client
from mlx_grpc.errors import MlxGrpcError
from tests.helpers.auth import Authority, TlsFolder, TokenFolder, bearer, http_call
from tests.helpers.serve import script, started
from tests.hostile.helpers.life import LOG_BYTES_A_MINUTE, Attacked, Bystander, attacked

pytestmark = pytest.mark.prove
FORGED = "2026-11-27 12:00:00,000 ERROR   forged"
EVIL = f"evil\n{FORGED}\r\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u2028\u202e\u2066\u061c\u200b"
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) .*")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """HTTP/2's."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: bytes) -> bytes:
    """A header in HPACK's plainest form: of any length, with any bytes."""
    return b"\0" + b"".join(_length(len(part)) + part for part in (name.encode(), value))


def _length(count: int) -> bytes:
    if count < 127:
        return bytes([count])
    count, parts = count - 127, [127]
    while count >= 128:
        count, parts = count // 128, [*parts, 128 + count % 128]
    return bytes([*parts, count])


class RawGrpc:
    """A client that sends what no library would; it waits for the server's first answer to each call."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0))
        self._stream = -1

    def call(self, path: bytes, **headers: bytes) -> None:
        """Until the call, or the connection, is over."""
        self._stream += 2
        known = {":method": b"POST", ":scheme": b"http", ":path": path, ":authority": b"x", "te": b"trailers"}
        all_headers = {**known, "content-type": b"application/grpc", **headers}
        head = b"".join(literal(name, value) for name, value in all_headers.items())
        try:
            self._socket.sendall(frame(HEADERS, 5, self._stream, head))
            while len(start := self._file.read(9)) == 9:
                self._file.read(int.from_bytes(start[:3], "big"))
                if int.from_bytes(start[5:9], "big") == self._stream and (start[3] in (3, 7) or start[4] & 1):
                    return
        except ConnectionError:
            return

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFolder:
    return TokenFolder(tmp_path)


@pytest.fixture(params=["text", "json"])
def server(request: pytest.FixtureRequest, tmp_path: Path, tokens: TokenFolder) -> Iterator[Attacked]:
    """With tokens, and a model whose engine raises an error that quotes what is in its files."""
    flags = ["--tokens", str(tokens.path), "--log-level", "debug"]
    flags += ["--log-json"] if request.param == "json" else []
    with attacked(tmp_path, *flags) as server:
        yield server


def over_grpc(server: Attacked, tokens: TokenFolder) -> None:
    """Paths without a token and with one; names in messages."""
    for path in (f"/{EVIL}/Generate".encode(), b"/\xff\xfe\n", b"/mlx_grpc.v1.InferenceService/" + EVIL.encode()):
        for authorization in (b"Bearer " + tokens.generate.encode(), EVIL.encode(), b""):
            raw = RawGrpc(server.addresses["grpc"])
            raw.call(path, **({"authorization": authorization} if authorization else {}))
            raw.close()
    raw = RawGrpc(server.addresses["grpc"])
    raw.call(b"/evil\n" + FORGED.encode())
    raw.close()
    with Client(server.addresses["grpc"], token=tokens.admin, retry=False) as client:
        for settings in ({"model": EVIL}, {"request_id": EVIL}, {"stop_strings": ["", EVIL]}):
            with contextlib.suppress(MlxGrpcError):
                client.generate("hi", max_tokens=1, **settings)
        for load in (client.load_model, client.unload_model, client.get_model):
            with contextlib.suppress(MlxGrpcError):
                load(EVIL)


def over_http(server: Attacked, tokens: TokenFolder) -> None:
    """Paths, names, headers, and requests that are none."""
    headers = bearer(tokens.admin)
    for port in ("http", "admin"):
        url = f"http://{server.addresses[port]}"
        http_call(url, f"/{quote(EVIL)}", headers=headers)
        http_call(url, f"/v1/models/{quote(EVIL)}", headers=headers)
        http_call(url, f"/admin/requests/{quote(EVIL, safe='')}/cancel", method="POST", headers=headers)
        http_call(url, "/v1/completions", method="POST", headers=headers, body={"model": EVIL, "prompt": "x"})
        http_call(url, "/admin/models/load", method="POST", headers=headers, body={"model": EVIL})
        http_call(url, "/admin/models/unload", method="POST", headers=headers, body={"model": EVIL, "force": True})
        host, _, number = server.addresses[port].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as raw:
            raw.sendall(f"GET /{EVIL} HTTP/1.1\r\nX-Request-Id: {EVIL}\r\n\r\n".encode())
            raw.recv(1000)


def over_websocket(server: Attacked, tokens: TokenFolder) -> None:
    """Names in messages, messages of no kind, and a path that there is not."""
    base = f"ws://{server.addresses['http']}"
    with connect(f"{base}/v1/ws", additional_headers=bearer(tokens.generate)) as socket_:
        for message in ({"type": "text_input", "text": "x", "model": EVIL}, {"type": EVIL}, {EVIL: EVIL}):
            socket_.send(json.dumps(message))
            socket_.recv(timeout=30)
        socket_.send(EVIL)
        socket_.recv(timeout=30)
    with contextlib.suppress(WebSocketException):
        connect(f"{base}/{quote(EVIL)}", additional_headers=bearer(tokens.generate))


def check_lines(lines: list[str]) -> None:
    """Each is printable and a record, or a marked continuation of one."""
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith(FORGED)] == []
    if lines[0].startswith("{"):
        assert all("message" in json.loads(line) for line in lines)
    else:
        assert [line for line in lines if not (RECORD.fullmatch(line) or line.startswith("    | "))] == []


def test_no_text_of_a_client_breaks_the_log(server: Attacked, tokens: TokenFolder) -> None:
    """At the level debug, in both of its forms: what was sent is there, written out."""
    over_grpc(server, tokens)
    over_http(server, tokens)
    over_websocket(server, tokens)
    server.serve.signal(signal.SIGTERM)
    assert server.serve.ended() == 0
    check_lines(server.log)
    assert [line for line in server.log if "forged" in line and (r"\x1b" in line or r"\u001b" in line)]


def test_a_path_that_is_no_text_ends_nothing_but_its_call(tmp_path: Path, tokens: TokenFolder, full_size: bool) -> None:
    """With and without a token: grpc's own loop ended with it, and with the loop all calls and the listening."""
    with attacked(tmp_path, "--tokens", str(tokens.path)) as server:
        with Bystander(server.addresses["grpc"], tokens.generate) as bystander:
            for number in range(1000 if full_size else 100):
                raw = RawGrpc(server.addresses["grpc"])
                headers = {"authorization": b"Bearer " + tokens.generate.encode()} if number % 2 else {}
                raw.call(bytes([47, 128 + number % 128, 255]), **headers)
                raw.close()
        assert bystander.errors == []
        server.serve.signal(signal.SIGTERM)
        assert server.serve.ended() == 0
        check_lines(server.log)
        assert not [line for line in server.log if "Traceback" in line or "decode" in line]


def test_no_text_of_an_engine_breaks_the_log(tmp_path: Path) -> None:
    """Its error quotes what is in a model's files; the traceback comes through its stderr."""
    fault = {"text": f"please {EVIL}", "action": "error", "once_path": str(tmp_path / "once")}
    ready = tmp_path / "ready"
    with started("--model", script(faults=[fault]), "--ready-file", str(ready)) as serve:
        serve.serving_line()
        with Client(json.loads(ready.read_text())["grpc"], retry=False, timeout_seconds=60) as client:
            client.generate(f"please {EVIL}", max_tokens=3)
        serve.signal(signal.SIGTERM)
        assert serve.ended() == 0
        check_lines(serve.errors)
        assert [line for line in serve.errors if "engine" in line and "Traceback" in line]
        assert not [line for line in serve.errors if line.startswith(("Traceback", "  File"))]


def test_no_text_of_a_model_breaks_the_last_line(tmp_path: Path) -> None:
    """A server that cannot start says why in one line, with its error in it."""
    with started("--model", script(load_error=EVIL)) as serve:
        assert serve.ended() == 1
        assert all(line.isprintable() for line in serve.errors)
        assert not [line for line in serve.errors if line.startswith(FORGED)]
        assert r"\x1b]0;title" in serve.errors[-1]


class Flood:
    """Requests that cost a client nothing, each of which is worth a line."""

    def __init__(self, server: Attacked, count: int) -> None:
        self.server, self.count = server, count

    def paths(self) -> None:
        """Long ones, without a token."""
        raw = RawGrpc(self.server.addresses["grpc"])
        for _ in range(self.count):
            raw.call(b"/" + b"\n" * 2000)
        raw.close()

    def no_http(self) -> None:
        host, _, port = self.server.addresses["http"].rpartition(":")
        for _ in range(self.count):
            with socket.create_connection((host, int(port)), timeout=30) as raw:
                raw.sendall(b"\x01\x02\r\n\r\n")
                raw.recv(1000)

    def no_tls(self) -> None:
        for port in ("grpc", "http"):
            host, _, number = self.server.addresses[port].rpartition(":")
            for _ in range(self.count):
                with socket.create_connection((host, int(number)), timeout=30) as raw:
                    raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 3)
                    with contextlib.suppress(ConnectionError):
                        raw.recv(1000)


@pytest.mark.parametrize("kind", ["paths", "no_http"])
def test_refusals_do_not_fill_the_log(tmp_path: Path, tokens: TokenFolder, kind: str, full_size: bool) -> None:
    """They are counted, and the count is logged."""
    count = 5000 if full_size else 1000
    with attacked(tmp_path, "--tokens", str(tokens.path)) as server:
        getattr(Flood(server, count), kind)()
        server.serve.signal(signal.SIGTERM)
        assert server.serve.ended() == 0
        assert server.log_bytes() < LOG_BYTES_A_MINUTE
        check_lines(server.log)
        counts = [line for line in server.log if "more lines like this were left out" in line]
        assert sum(int(line.split()[3]) for line in counts) > count // 2


def test_handshakes_that_fail_do_not_fill_the_log(tmp_path: Path, full_size: bool) -> None:
    """Plain text sent to TLS ports: gRPC's own library would write a line for each."""
    files = TlsFolder(tmp_path, Authority().issue())
    with attacked(tmp_path, "--tls-cert", str(files.cert), "--tls-key", str(files.key)) as server:
        Flood(server, 2000 if full_size else 500).no_tls()
        server.serve.signal(signal.SIGTERM)
        assert server.serve.ended() == 0
        assert server.log_bytes() < LOG_BYTES_A_MINUTE


def test_an_honest_log_is_whole(tmp_path: Path) -> None:
    """Some dozens of calls, one after the other: each has its line."""
    with attacked(tmp_path) as server:
        with Client(server.addresses["grpc"], retry=False) as client:
            for number in range(40):
                client.generate("hi", max_tokens=1, request_id=f"mine-{number}")
        server.serve.signal(signal.SIGTERM)
        assert server.serve.ended() == 0
        told: list[Any] = [line for line in server.log if "accepted" in line and "mine-" in line]
        assert len(told) == 40
        assert not [line for line in server.log if "left out" in line]
