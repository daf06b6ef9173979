"""A server with a model whose template obeys its callers, clients that attack it, and what an honest client sees.

    python -m tests.hostile.helpers.render ATTACK HOST:PORT ROUNDS

attacks from a process of its own, and tells on standard output how its calls ended, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from mlx_grpc.v1 import chat_pb2
from tests.helpers.llama import CHAT_TEMPLATE, make_llama
from tests.helpers.proofs.servers import Served, served
from tests.helpers.rpc import Api, Request, Stop, connected, read_refusal

OBEDIENT = (
    "{% if loops %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
    "{% if copies %}{{ 'a' * copies }}{% endif %}" + CHAT_TEMPLATE
)
CONTEXT_LENGTH = 131_072
CLIENTS = 6
MOST_BYTES = 150_000_000
LOG_BYTES_A_MINUTE = 100_000
LEAVE_SECONDS = 0.3
ROOT = Path(__file__).parents[3]
LARGE = "The quick brown fox jumps over the lazy dog. " * 90_000
"""Past what a context of 131,072 may have; `WITHIN` is not, and has to be tokenized."""
WITHIN = LARGE[: 8 * CONTEXT_LENGTH - 1000]


@contextmanager
def obedient_server(folder: Path) -> Iterator[Served]:
    """A tiny Llama with a long context and `OBEDIENT` as its template, in a process of its own."""
    make_llama(folder / "llama", max_position_embeddings=CONTEXT_LENGTH)
    path = folder / "llama" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": OBEDIENT}))
    with served(folder, model=f"llama={folder / 'llama'}") as server:
        yield server


def chat(text: str, **args: object) -> Request:
    """A chat of one message that wants one token."""
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return Request(
        chat=chat_pb2.Chat(messages=[message], template_args_json=json.dumps(args) if args else ""),
        stop=Stop(max_tokens=1, ignore_eos=True),
    )


def hostile(attack: str) -> Request:
    """What such a client sends."""
    match attack:
        case "large":
            return chat(LARGE)
        case "within":
            return chat(WITHIN)
        case "copies":
            return chat("hi", copies=3 * 10**9)
    return chat("hi", loops=True)


async def attack_from_here(attack: str, target: str, rounds: int) -> Counter[str]:
    """Clients with connections of their own that send at once, so often; how their calls ended."""
    ends: Counter[str] = Counter()
    request = hostile(attack)

    async def client() -> None:
        async with connected(target) as api:
            for _ in range(rounds):
                timeout = LEAVE_SECONDS if attack == "leaving" else 120.0
                try:
                    await api.answer(request, timeout=timeout)
                    ends["answered"] += 1
                except grpc.aio.AioRpcError as error:
                    refusal = read_refusal(error)
                    ends[f"{refusal.code} {refusal.reason} {refusal.field}".strip()] += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return ends


async def attack_from_elsewhere(attack: str, target: str, rounds: int) -> dict[str, int]:
    """The same, from a process of its own."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.hostile.helpers.render", attack, target, str(rounds),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await child.communicate()
    assert child.returncode == 0
    ends: dict[str, int] = json.loads(told)
    return ends


@dataclass
class Seen:
    """What an honest client saw: the longest time for a health check, between two tokens and for a short chat."""

    health_seconds: float = 0.0
    token_seconds: float = 0.0
    chat_seconds: float = 0.0
    chats: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def longest(self, name: str, began_seconds: float) -> None:
        setattr(self, name, max(getattr(self, name), time.monotonic() - began_seconds))


@asynccontextmanager
async def honest(target: str) -> AsyncIterator[Seen]:
    """One client that checks health, one that reads a stream, one that chats, until the block ends."""
    seen = Seen()
    async with connected(target) as api, connected(target) as reading, connected(target) as chatting:
        await chatting.answer(chat("hi"))  # all that is made at the first use
        tasks = [
            asyncio.create_task(_repeated(seen, lambda: _check(seen, api))),
            asyncio.create_task(_repeated(seen, lambda: _stream(seen, reading))),
            asyncio.create_task(_repeated(seen, lambda: _chat(seen, chatting))),
        ]
        try:
            yield seen
        finally:
            seen.ended.set()
            await asyncio.gather(*tasks)


async def _repeated(seen: Seen, once: Callable[[], Awaitable[None]]) -> None:
    while not seen.ended.is_set():
        await once()


async def _check(seen: Seen, api: Api) -> None:
    began_seconds = time.monotonic()
    await api.health.Check(health_pb2.HealthCheckRequest())
    seen.longest("health_seconds", began_seconds)
    await asyncio.sleep(0.02)


async def _stream(seen: Seen, api: Api) -> None:
    last_seconds = None
    async for event in api.stream(Request(prompt="on", stop=Stop(max_tokens=500, ignore_eos=True))):
        if event.WhichOneof("event") == "delta":
            if last_seconds is not None:
                seen.longest("token_seconds", last_seconds)
            last_seconds = time.monotonic()


async def _chat(seen: Seen, api: Api) -> None:
    began_seconds = time.monotonic()
    await api.answer(chat("hi"))
    seen.longest("chat_seconds", began_seconds)
    seen.chats += 1
    await asyncio.sleep(0.05)


def resident_bytes(pid: int) -> int:
    """Of the server's own process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def most_bytes_while(pid: int, running: asyncio.Task[object]) -> int:
    """The most memory that the server has until the task ends."""
    most_bytes = resident_bytes(pid)
    while not running.done():
        await asyncio.wait((running,), timeout=0.02)
        most_bytes = max(most_bytes, resident_bytes(pid))
    return most_bytes


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(attack_from_here(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
