"""For tests of the OpenAI-compatible port: a server with it, and callers that see the bare HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mlx_grpc import testing
from mlx_grpc.testing import LocalServer, Script

PATIENCE_SECONDS = 30.0
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@dataclass
class Bridge:
    """A running server, and where its OpenAI-compatible port is."""

    server: LocalServer
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK takes."""
        return f"{self.url}/v1"

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """One call on a connection of its own; `body` is JSON, or bytes as they are."""
        return await self.call("POST", path, body, headers)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.call("GET", path, None, headers)

    async def call(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        async with self.opened(method, path, body, headers) as connection:
            return await connection.answer()

    @asynccontextmanager
    async def opened(
        self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Connection]:
        """A call that was sent; closing the block closes its connection."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"host": f"{self.host}:{self.port}", "connection": "close", "content-length": str(len(raw))}
        fields |= {"content-type": "application/json"} if body is not None else {}
        fields |= {name.lower(): value for name, value in (headers or {}).items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)
        try:
            yield Connection(reader)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What is inside an error in OpenAI's form."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    @property
    def events(self) -> list[Any]:
        """The data of an event stream: JSON, but for the last."""
        lines = [line.removeprefix("data: ") for line in self.body.decode().split("\n\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        """The text of a streamed chat."""
        chunks = [event for event in self.events if event != "[DONE]" and event.get("choices")]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


@dataclass
class Connection:
    """An answer in the making."""

    reader: asyncio.StreamReader
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0

    async def head(self) -> int:
        """The status, once the headers are there."""
        if not self.status:
            async with asyncio.timeout(PATIENCE_SECONDS):
                lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
            self.status = int(lines[0].split()[1])
            self.headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
            }
        return self.status

    async def until(self, mark: bytes) -> bytes:
        """The raw bytes of the body up to a mark."""
        await self.head()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(mark)

    async def answer(self) -> Answer:
        """All of it, chunks put together."""
        await self.head()
        async with asyncio.timeout(PATIENCE_SECONDS):
            raw = await self.reader.read()
        if self.headers.get("transfer-encoding") == "chunked":
            raw = _joined(raw)
        return Answer(self.status, self.headers, raw)


def _joined(raw: bytes) -> bytes:
    parts = []
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        parts.append(raw[: int(size, 16)])
        raw = raw[int(size, 16) + 2 :]
    return b"".join(parts)


@asynccontextmanager
async def bridge(script: Script | None = None, **settings: Any) -> AsyncIterator[Bridge]:
    """A server in the running event loop."""
    async with testing.serve(script, **settings) as server:
        yield bridge_of(server)


def bridge_of(server: LocalServer) -> Bridge:
    """The port of a server that runs already."""
    host, _, port = server.server.http.address.rpartition(":")
    return Bridge(server, host, int(port))


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat of one question."""
    return {"messages": [{"role": "user", "content": text}], **fields}
