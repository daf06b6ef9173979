"""As much of HTTP/1.1 as a streamed answer needs, on asyncio's streams: one POST a connection, its lines as they come.

Refuses what it does not read (a redirect, a compressed body) by status or by not asking for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

LONGEST_LINE_BYTES = 16 * 1024 * 1024
MOST_HEADERS = 200


class BadAnswer(Exception):
    """What came is not HTTP."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where an HTTP server is; `base_path` goes before every path."""

    host: str
    port: int
    tls: bool
    base_path: str

    @classmethod
    def parse(cls, url: str) -> Server:
        """From "http://HOST:PORT" or https, with or without a path. Raises ValueError with one line."""
        wrong = ValueError(f"http: {url!r} is no URL like http://localhost:8080")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise wrong
        tls = parts.scheme == "https"
        base = parts.path.rstrip("/").removesuffix("/v1")  # as OpenAI's SDK wants it, or without
        return cls(parts.hostname, port or (443 if tls else 80), tls, base)


class Answer:
    """A status, and the body's lines."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self._headers = headers
        self._reader = reader

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The body's lines without their ends. Raises asyncio.IncompleteReadError for a body that is cut short."""
        rest = b""
        async for piece in self._pieces():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.removesuffix(b"\r")
        if rest:
            yield rest

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self._headers.get("transfer-encoding", "").lower() == "chunked":
            while size := _number(await self._reader.readline(), 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
        elif "content-length" in self._headers:
            yield await self._reader.readexactly(_number(self._headers["content-length"].encode(), 10))
        else:
            while piece := await self._reader.read(65536):
                yield piece


@contextlib.asynccontextmanager
async def post(server: Server, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Answer]:
    """Sends a body over a new connection, which ends with the block. Raises OSError, BadAnswer."""
    context = ssl.create_default_context() if server.tls else None
    reader, writer = await asyncio.open_connection(server.host, server.port, ssl=context, limit=LONGEST_LINE_BYTES)
    try:
        host = f"[{server.host}]" if ":" in server.host else server.host
        lines = [f"POST {server.base_path}{path} HTTP/1.1", f"Host: {host}:{server.port}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        await writer.drain()
        status = _status(await reader.readline())
        yield Answer(status, await _headers(reader), reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _status(line: bytes) -> int:
    if not line:
        raise ConnectionResetError("the connection was closed without an answer")
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise BadAnswer(f"no HTTP status: {line[:80]!r}")
    return int(parts[1])


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(MOST_HEADERS):
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise BadAnswer("too many headers")


def _number(text: bytes, base: int) -> int:
    try:
        return int(text.split(b";")[0], base)
    except ValueError:
        raise BadAnswer(f"no length: {text[:80]!r}") from None
