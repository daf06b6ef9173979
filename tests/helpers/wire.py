"""A wire between client and server that a test can cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Wire:
    """A connection that can be cut, as by a client that lost its network or its power."""

    def __init__(self) -> None:
        self.target = ""
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Both ends lose it at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._writers += [writer, far_writer]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def wired(target: str) -> AsyncIterator[Wire]:
    """A wire to a server, on a port of its own."""
    wire = Wire()
    async with await asyncio.start_server(
        lambda reader, writer: wire.join(reader, writer, target), "127.0.0.1"
    ) as near:
        wire.target = f"127.0.0.1:{near.sockets[0].getsockname()[1]}"
        try:
            yield wire
        finally:
            wire.cut()
