"""The suite's HTTP against servers that answer what none should."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlx_grpc.check.outcome import Failed
from mlx_grpc.check.web import Busy, Web


@contextmanager
def answering(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Iterator[tuple[Web, list[str]]]:
    """A server that always answers so, and the bearer tokens that it was sent."""
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            tokens.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Web(f"http://127.0.0.1:{server.server_port}/", "secret", 10), tokens
        finally:
            server.shutdown()
            thread.join()


def test_events_up_to_done() -> None:
    """Comments between them are passed over."""
    with answering(b': wait\n\ndata: {"a": 1}\n\ndata: [DONE]\n\n') as (web, tokens):
        assert web.events("/", {}) == [{"a": 1}]
    assert tokens == ["Bearer secret"]


def test_a_stream_that_breaks_off() -> None:
    """Without [DONE] it is a failure, whatever came."""
    with answering(b'data: {"a": 1}\n\n') as (web, _), pytest.raises(Failed, match="broke off after 1"):
        web.events("/chat", {})


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff{"])
def test_what_is_no_json(body: bytes) -> None:
    """Said with the path."""
    with answering(body) as (web, _), pytest.raises(Failed, match="/admin/status: this is no JSON"):
        web.json("GET", "/admin/status")


def test_a_status_that_refuses() -> None:
    """Status and the beginning of the body."""
    with answering(b'{"error": "no"}', 401) as (web, _), pytest.raises(Failed, match=r'/: 401 \{"error": "no"\}'):
        web.json("GET", "/")


def test_a_full_queue_says_when_to_come_back() -> None:
    """429 with Retry-After; without it, a failure like any other."""
    with answering(b"busy", 429, {"Retry-After": "3"}) as (web, _), pytest.raises(Busy, match="429 busy") as caught:
        web.json("GET", "/")
    assert caught.value.retry_after_seconds == 3
    with answering(b"busy", 429) as (web, _), pytest.raises(Failed) as failed:
        web.json("GET", "/")
    assert not isinstance(failed.value, Busy)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "https://127.0.0.1:1/x"])
def test_nobody_there(url: str) -> None:
    """With or without a scheme."""
    with pytest.raises(Failed, match=r"at 127\.0\.0\.1:1: ConnectionRefusedError"):
        Web(url, None, 10).json("GET", "/")


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:port", "http://[::1"])
def test_an_address_that_is_none(url: str) -> None:
    """A failure like any other, not a traceback."""
    with pytest.raises(Failed):
        Web(url, None, 10).json("GET", "/")
