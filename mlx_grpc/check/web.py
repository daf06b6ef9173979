"""HTTP by the standard library: blocking, for threads, and with an end to every wait."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from mlx_grpc.check.outcome import Failed

MAX_BODY_BYTES = 16 * 1024 * 1024


class Busy(Failed):
    """A full queue, with the time to come back."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Web:
    """One port of the server. Every call has a connection of its own, and raises Failed with the path in it."""

    def __init__(self, url: str, token: str | None, timeout_seconds: float) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
        except ValueError as error:
            raise Failed(f"{url} is no URL: {error}") from error
        if not parts.hostname:
            raise Failed(f"{url} is no URL: it names no host")
        self._secure = parts.scheme == "https"
        self._place = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_seconds = timeout_seconds

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; a status other than 200 is a failure."""
        with self._asked(method, path, body) as answer:
            return _parsed(answer.read(MAX_BODY_BYTES), path)

    def events(self, path: str, body: Any) -> list[Any]:
        """The JSON of every server-sent event up to `[DONE]`, without which it is a failure."""
        found: list[Any] = []
        ends_seconds = time.monotonic() + self._timeout_seconds
        with self._asked("POST", path, body) as answer:
            while line := answer.readline(MAX_BODY_BYTES):
                if time.monotonic() > ends_seconds:  # the socket's own limit is for each read
                    raise Failed(f"{path}: the stream did not end within {self._timeout_seconds:g} s")
                name, _, data = line.partition(b":")
                if name != b"data":
                    continue
                if data.strip() == b"[DONE]":
                    return found
                found.append(_parsed(data, path))
        raise Failed(f"{path}: the stream broke off after {len(found)} events, without [DONE]")

    @contextmanager
    def _asked(self, method: str, path: str, body: Any) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        raw = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if raw else {})
        try:
            connection = kind(self._place, timeout=self._timeout_seconds)
            try:
                connection.request(method, self._prefix + path, raw, headers)
                answer = connection.getresponse()
                if answer.status != 200:
                    raise _refusal(path, answer)
                yield answer
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{path} at {self._place}: {type(error).__name__} {error}".rstrip()) from error


def _refusal(path: str, answer: http.client.HTTPResponse) -> Failed:
    message = f"{path}: {answer.status} {_short(answer.read(MAX_BODY_BYTES))}"
    seconds = answer.getheader("Retry-After", "")
    return Busy(message, float(seconds)) if answer.status in (429, 503) and seconds.isdigit() else Failed(message)


def _parsed(raw: bytes, path: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        raise Failed(f"{path}: this is no JSON: {_short(raw)}") from None


def _short(raw: bytes) -> str:
    return " ".join(raw[:200].decode(errors="replace").split())
