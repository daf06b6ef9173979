"""Model folders and files that nobody means well with, and a server that is to load them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc.config import Config
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.server import Server

NUMBERS: Sequence[Any] = (
    0, -1, 1, 2, 3, 7, 10**9, 2**31, 2**31 - 1, 2**40, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e308, float("nan"),
    float("inf"), True, None, "", "x", "2", "../../etc/passwd", "\ud800", [], {}, [0] * 100, [[[[]]]], {"a": {"b": {}}},
    list(range(1000)), "x" * 10_000,
)  # fmt: skip


PIECES = ["<unk>", "<s>", "</s>", "a", "b"]


def sentence_pieces(tokens: list[str]) -> dict[str, Any]:
    """The changes that give a small GGUF file a vocabulary of this kind."""
    return {
        "tokenizer__ggml__model": "llama", "tokenizer__ggml__pre": None, "tokenizer__ggml__merges": None,
        "tokenizer__ggml__tokens": tokens, "tokenizer__ggml__scores": [0.0] * len(tokens),
        "tokenizer__ggml__token_type": [2, 3, 3, *[1] * (len(tokens) - 3)],
    }  # fmt: skip


def change(file: Path, **keys: Any) -> None:
    """Change keys of a JSON file, which may have to be made."""
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | keys))


def mutated_json(content: Any, source: random.Random) -> Any:
    """The same with one value replaced, removed or doubled, at a place that `source` draws."""
    content = json.loads(json.dumps(content))
    holder, key = source.choice(list(_places(content)))
    what = source.randrange(4)
    if what == 0 and isinstance(holder, dict):
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[source.choice(["", "a", key * 2, "num_experts", "layer_types"])] = source.choice(NUMBERS)
    elif what == 1:
        holder += holder
    else:
        holder[key] = source.choice(NUMBERS)
    return content


def _places(content: Any) -> Any:
    waiting = [content]
    while waiting:
        holder = waiting.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder[:50]):
            yield holder, key
            if isinstance(value, (dict, list)) and value:
                waiting.append(value)


def mutated_bytes(content: bytes, source: random.Random, header_bytes: int) -> bytes:
    """The same with some of the first `header_bytes` replaced, removed or put in twice, or cut off there."""
    damaged = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 5))):
        place = source.randrange(min(header_bytes, len(damaged)))
        what = source.randrange(5)
        if what == 0:
            damaged[place] = source.randrange(256)
        elif what == 1:
            number = source.choice((0, 1, 2**16, 2**24, 2**31, 2**32, 2**40, 2**60, 2**63, 2**64 - 1))
            damaged[place : place + 8] = struct.pack("<Q", number)
        elif what == 2:
            del damaged[place : place + source.choice((1, 4, 8, 100))]
        elif what == 3:
            damaged[place:place] = damaged[place : place + source.choice((1, 8, 300))]
        else:
            damaged[place:] = (
                damaged[place : place + source.randrange(1, 400)] if source.random() < 0.3 else damaged[place:]
            )
    return bytes(damaged) or b"\0"


def resident_bytes(pid: int) -> int:
    """Of a process, on Linux."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Loop:
    """How an event loop did: the longest time that it did nothing else."""

    longest_gap_seconds: float = 0.0

    async def watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest_gap_seconds = max(self.longest_gap_seconds, time.monotonic() - began - 0.01)


@asynccontextmanager
async def hosting(**folders: Path) -> AsyncIterator[tuple[Server, Loop]]:
    """A server with a scripted model, which is ready, and these folders, each of which is loaded or has failed. Engines
    are processes."""
    names = [f"{name}={folder}" for name, folder in folders.items()]
    server = Server(Config(model=("script:{}", *names), grpc_port=0, http_port=0, admin_port=0), ProcessLink)
    loop = Loop()
    watching = asyncio.create_task(loop.watch())
    try:
        await server.start()
        for host in server.catalog.hosts:
            await host.life.settled()
        yield server, loop
    finally:
        watching.cancel()
        await server.stop(0)


def write_sparse(file: Path, size_bytes: int) -> None:
    """A file of that size, which takes no room."""
    with file.open("wb") as stream:
        stream.truncate(size_bytes)


Break = Callable[[Path], object]
