"""The server's life on one screen: listen, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from mlx_grpc import __version__
from mlx_grpc.config import Config
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.models.progress import make_progress
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.observe.logs import set_up_logging
from mlx_grpc.observe.stats import Stats
from mlx_grpc.rpc.health import HealthServicer
from mlx_grpc.rpc.listener import INFERENCE, ListenError, listen, make_server
from mlx_grpc.service.catalog import Catalog, StartLink
from mlx_grpc.service.host import ModelHost, ModelState
from mlx_grpc.service.service import Service
from mlx_grpc.service.sources import callers_source, model_source

log = logging.getLogger(__name__)
Result = TypeVar("Result")

LAST_WRITES_SECONDS = 1.0
"""After the drain, for clients to read what was written."""


class Server:
    """Everything that a running server owns. Lives in one event loop; `stop` must follow `start`."""

    def __init__(self, config: Config, start_link: StartLink | None = None) -> None:
        self.config = config
        self.address = ""
        self.health = HealthServicer()
        self.stats = Stats()
        self.catalog = Catalog(
            config,
            lambda name: callers_source(name, config.cache_dir),
            self._model_changed,
            self.stats,
            start_link,
        )
        self.service = Service(self.catalog, config.default_max_tokens, self.stats)
        self._grpc = make_server(self.service, self.health, config)

    async def start(self) -> None:
        """Listen, and start to load the models. Raises ListenError or ModelSourceError, and then nothing is left."""
        for text in self.config.model or ("",):
            self.catalog.add(model_source(text, self.config.cache_dir, make_progress))
        self.address = listen(self._grpc, self.config)
        await self._grpc.start()
        for host in self.catalog.hosts:
            host.load()

    async def ready(self) -> bool:
        """True when every model is READY. Raises ModelSourceError with the reason of the first that failed."""
        for host in self.catalog.hosts:
            await host.settled()
            if host.state is ModelState.FAILED:
                raise ModelSourceError(f"model {host.source.id}: {host.error}")
        return True

    async def drain(self) -> bool:
        """Say NOT_SERVING, refuse new calls, let the accepted ones finish in time; True when all did."""
        self.health.drain()
        return await self.service.drain(self.config.drain_seconds)

    async def stop(self, grace_seconds: float = LAST_WRITES_SECONDS) -> None:
        """End all calls, engines and connections. What was not drained is cut off."""
        self.health.drain()
        self.service.draining = True
        await self._grpc.stop(grace_seconds)
        await self.catalog.close()
        if self.config.grpc_socket:
            self.config.grpc_socket.unlink(missing_ok=True)

    def _model_changed(self, host: ModelHost) -> None:
        ready = host.state is ModelState.READY
        self.health.set(f"models/{host.source.id}", ready)
        if host.source.id == self.catalog.default_id:
            self.health.set(INFERENCE, ready)


def serve(config: Config) -> int:
    """Run a server until a signal ends it; returns the exit code: 0 when every accepted call was served."""
    set_up_logging(config.log_level)
    try:
        return asyncio.run(_serve(config))
    except (ListenError, ModelSourceError, MlxGrpcError) as error:
        print(f"mlx-grpc: {error}", file=sys.stderr)
        return 1


async def _serve(config: Config) -> int:
    stop_asked, now_asked = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (now_asked if stop_asked.is_set() else stop_asked).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    server = Server(config)
    await server.start()
    served_all = True
    try:
        if await _unless(stop_asked, server.ready()) is not None:
            _announce(server)
            await stop_asked.wait()
        log.info("draining for at most %g s; a second signal ends it now", config.drain_seconds)
        served_all = await _unless(now_asked, server.drain()) or False
    finally:
        if config.ready_file:
            config.ready_file.unlink(missing_ok=True)
        await server.stop(0 if now_asked.is_set() else LAST_WRITES_SECONDS)
    log.info("stopped")
    return 0 if served_all else 1


async def _unless(interrupt: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """What the work returns or raises; None, and the work cancelled, when the interrupt comes first."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(interrupt.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, waiting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


def _announce(server: Server) -> None:
    """Tell people on stdout, and programs by the ready file, that calls are taken."""
    for host in server.catalog.hosts:
        info = host.info
        if info is not None:
            for note in info.notes:
                log.info("%s", note)
            log.info(
                "model %s: %s on %s, %.0f MB, context %d",
                host.source.id, info.dtype, info.device, info.weights_bytes / 1e6, host.context_length,
            )  # fmt: skip
    print(f"mlx-grpc {__version__} SERVING gRPC on {server.address}", flush=True)
    if server.config.ready_file:
        _write_ready_file(server.config.ready_file, {"grpc": server.address, "pid": os.getpid()})


def _write_ready_file(path: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all: whoever waits for the file may read it at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(path)
