"""A TCP proxy whose wires go bad: cut with a reset, stalled with both ends open, or half open with one end gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 s: closing sends RST and not FIN."""


@dataclass
class Proxy:
    """Passes bytes on between clients and one server, until told otherwise."""

    target: str
    near: str = ""
    """What clients connect to."""
    _pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=list)
    _flows: asyncio.Event = field(default_factory=asyncio.Event)

    def stall(self) -> None:
        """Nothing passes any more, either way, and nobody is told."""
        self._flows.clear()

    def flow(self) -> None:
        """All passes again."""
        self._flows.set()

    def reset(self) -> None:
        """Both ends get a RST."""
        for writer in (writer for pair in self._pairs for writer in pair):
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                writer.transport.abort()

    def half_open(self) -> None:
        """The client's end goes; the server is told nothing, and what it sends goes nowhere."""
        self.stall()
        for client, _ in self._pairs:
            client.transport.abort()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        host, _, port = self.target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._pairs.append((writer, far_writer))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        await self._flows.wait()
        writer.close()


@asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """A proxy to a server, on a port of its own; at its end all its wires are cut."""
    proxy = Proxy(target)
    proxy.flow()
    joins: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(proxy.join(reader, writer), name="proxy")
        joins.add(task)

    async with await asyncio.start_server(accept, "127.0.0.1") as listener:
        proxy.near = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            proxy.flow()
            proxy.reset()
            for task in joins:
                task.cancel()
            await asyncio.gather(*joins, return_exceptions=True)
