"""A whole server in your own test's process, on a free port, with a scripted model. Needs no MLX and no download.

In an asyncio test, in the test's own event loop:

    async with mlx_grpc.testing.serve(Script(replies={"ping": "pong"})) as server:
        async with AsyncClient(server.target) as client:
            answer = await client.generate(prompt="ping")

In any other test, in a thread with an event loop of its own:

    with mlx_grpc.testing.run(Script(replies={"ping": "pong"})) as server, Client(server.target) as client:
        answer = client.generate(prompt="ping")

Everything but the model is what `mlx-grpc serve` runs: gRPC, validation, queue, scheduler, text. The engine runs in a
thread, or with `engine="process"` in a child process as in service, where a script can also crash it. What `Script` can
say is in `mlx_grpc.engine.scripted.script`. Settings are those of `mlx-grpc serve`: `run(max_queue=4)`.

Programs in other languages start `python -m mlx_grpc.testing`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import msgspec

from mlx_grpc.config import Config
from mlx_grpc.engine.link.interface import StartLink
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.engine.link.thread import ThreadLink
from mlx_grpc.engine.scripted.script import Fault, Script
from mlx_grpc.server import Server
from mlx_grpc.service.hosting.catalog import Catalog
from mlx_grpc.service.intake.tokenizer import SCRIPT_PREFIX

__all__ = ["Fault", "LocalServer", "Script", "run", "serve"]

Engine = Literal["thread", "process"]
_LINKS: dict[str, StartLink] = {"thread": ThreadLink, "process": ProcessLink}


class LocalServer:
    """A running server. `target` is what a channel or a client takes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.target = server.address
        self.admin_url = f"{server.admin.scheme}://{server.admin.address}"
        self.http_url = f"{server.http.scheme}://{server.http.address}"

    @property
    def catalog(self) -> Catalog:
        """The models, for tests that look inside."""
        return self.server.catalog

    @property
    def engine_pid(self) -> int | None:
        """The default model's engine process, for tests that break it."""
        return self.catalog.get("").engine_pid

    @property
    def active_rows(self) -> int:
        """Requests that hold a row of the default model's batch now."""
        return self.catalog.get("").dispatcher.scheduler.ledger.running


@asynccontextmanager
async def serve(
    script: Script | None = None, *, engine: Engine = "thread", start_link: StartLink | None = None, **settings: Any
) -> AsyncIterator[LocalServer]:
    """A server in the running event loop, ready for calls; drained of nothing and stopped at the end."""
    server = Server(_config(script, settings), start_link or _LINKS[engine])
    try:
        await server.start()
        await server.ready()
        yield LocalServer(server)
    finally:
        await server.stop(grace_seconds=0)


@contextmanager
def run(
    script: Script | None = None, *, engine: Engine = "thread", start_link: StartLink | None = None, **settings: Any
) -> Iterator[LocalServer]:
    """A server in a thread of its own, ready for calls; stopped at the end."""
    outcome: list[LocalServer | BaseException] = []
    known, loops = threading.Event(), []

    async def live() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loops.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with serve(script, engine=engine, start_link=start_link, **settings) as server:
            outcome.append(server)
            known.set()
            await ended.wait()

    thread = threading.Thread(target=_run_loop, args=(live, outcome, known), name="mlx_grpc server")
    thread.start()
    known.wait()
    if isinstance(outcome[0], BaseException):
        thread.join()
        raise outcome[0]
    try:
        yield outcome[0]
    finally:
        loops[0]()
        thread.join()


def _run_loop(live: Callable[[], Any], outcome: list[LocalServer | BaseException], known: threading.Event) -> None:
    try:
        asyncio.run(live())
    except BaseException as error:  # the thread that waits is the one to see it
        outcome.insert(0, error)
    finally:
        known.set()


def _config(script: Script | None, settings: dict[str, Any]) -> Config:
    path = SCRIPT_PREFIX + msgspec.json.encode(script or Script()).decode()
    ports = {"grpc_port": 0, "http_port": 0, "admin_port": 0}
    return Config(**{"model": (f"scripted={path}",), **ports, **settings})
