"""The server's life on one screen: listen, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from mlx_grpc import __version__, preflight, ready_file
from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.setup import open_auth
from mlx_grpc.bounds.descriptors import Shares, limit_now, raise_limit
from mlx_grpc.bounds.heap import Heap
from mlx_grpc.bounds.intake import Intake
from mlx_grpc.bounds.rates import ClientRates
from mlx_grpc.config import Config, ConfigError
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.http.admin.app import make_admin_app
from mlx_grpc.http.openai.app import openai_app
from mlx_grpc.http.runner import HttpServer
from mlx_grpc.listening import AddressInUse, ListenError
from mlx_grpc.models.progress import make_progress
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.observe.logs import set_up_logging
from mlx_grpc.observe.stats import Stats
from mlx_grpc.observe.text import escaped
from mlx_grpc.observe.traces import open_tracing
from mlx_grpc.observe.unhandled import LoopErrors, log_unhandled
from mlx_grpc.ready_file import ReadyFile, ReadyFileError
from mlx_grpc.rpc.health import HealthServicer
from mlx_grpc.rpc.listener import INFERENCE, listen, make_server
from mlx_grpc.rpc.unix_socket import SocketFile
from mlx_grpc.service.hosting.catalog import Catalog, StartLink
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.service.hosting.sources import callers_source, model_source
from mlx_grpc.service.monitor import Monitor
from mlx_grpc.service.service import Service

log = logging.getLogger(__name__)
Result = TypeVar("Result")

FAILED, USAGE = 1, 2
"""Exit codes, as all commands have them."""
AFTER_SLOW_READER_SECONDS = 5.0
"""A connection whose client takes nothing is cut off by this much later than its call: a call can say why."""
LAST_WRITES_SECONDS = 1.0
"""After the drain, for clients to read what was written."""


class Server:
    """Everything that a running server owns. Lives in one event loop; `stop` must follow `start`."""

    def __init__(self, config: Config, start_link: StartLink | None = None) -> None:
        """Raises AuthError for files and settings that no server must start with."""
        self.config = config
        self._auth = auth = open_auth(config)
        self.stop_asked = asyncio.Event()
        """Somebody wants the server to drain and end: a signal, or an operator."""
        self.health = HealthServicer()
        self.intake = Intake.for_messages(config.max_request_bytes, config.max_intake_bytes)
        self._heap = Heap(self.intake)
        self.stats = Stats()
        self.tracing = open_tracing(config)
        rates = ClientRates(config.client_requests_per_minute, config.client_tokens_per_minute)
        self.catalog = Catalog(
            config,
            lambda name: callers_source(name, config.cache_dir),
            self._model_changed,
            self.stats,
            start_link,
            rates,
        )
        self.service = Service(self.catalog, config.default_max_tokens, self.stats, self.tracing, rates)
        self.monitor = Monitor(self.service)
        shares = preflight.shares(config)
        self._grpc = make_server(self.service, self.health, config, auth.access, self.intake, shares.grpc)
        self.address = ""
        """Where gRPC is: HOST:PORT, once started."""
        self._socket: SocketFile | None = None
        tls = auth.tls.ssl_context() if auth.tls else None
        self.admin = HttpServer(
            make_admin_app(self.service, self.monitor, self.ask_to_stop, config.admin_host, auth.access),
            config.admin_host,
            config.admin_port,
            flag="--admin-port",
            intake=self.intake,
            tls=tls,
            connections=shares.admin,
        )
        self.http = HttpServer(
            openai_app(self.service, config, auth.access),
            config.host,
            config.http_port,
            max_body_bytes=config.max_request_bytes,
            intake=self.intake,
            write_seconds=config.slow_reader_seconds + AFTER_SLOW_READER_SECONDS,
            tls=tls,
            connections=shares.http,
        )

    async def start(self) -> None:
        """Listen, and start to load the models. Raises ListenError or ModelSourceError; `stop` then leaves nothing."""
        sources = [model_source(text, self.config.cache_dir, make_progress) for text in self.config.model or ("",)]
        if len(sources) == 1:
            sources = [preflight.with_context(sources[0], self.config.context_length)]
        for source in sources:
            self.catalog.add(source)
        listening = listen(self._grpc, self.config, self._auth.tls)
        self.address, self._socket = listening.address, listening.socket
        await self.http.start()
        await self.admin.start()
        await self._grpc.start()
        for host in self.catalog.hosts:
            host.load()
        self.monitor.start()
        self._auth.watch.start()
        self._heap.start()

    async def ready(self) -> bool:
        """True when every model is READY. Raises ModelSourceError with the reason of the first that failed."""
        for host in self.catalog.hosts:
            await host.life.settled()
            if host.life.state is ModelState.FAILED:
                raise ModelSourceError(f"model {host.source.id}: {host.life.error}")
        return True

    def ask_to_stop(self) -> None:
        """Take no new call from now on, and have the owner drain and stop the server."""
        self.health.drain()
        self.service.draining = True
        self.stop_asked.set()

    async def drain(self) -> bool:
        """Say NOT_SERVING, refuse new calls, let the accepted ones finish in time; True when all did."""
        self.health.drain()
        return await self.service.drain(self.config.drain_seconds)

    async def stop(self, grace_seconds: float = LAST_WRITES_SECONDS) -> None:
        """End all calls, engines and connections. What was not drained is cut off."""
        self.health.drain()
        self.service.draining = True
        await self.monitor.close()
        await self._heap.close()
        await asyncio.gather(*(listener.stop(grace_seconds) for listener in (self._grpc, self.http, self.admin)))
        await self.catalog.close()
        await asyncio.to_thread(self.tracing.close)
        if self._socket:
            self._socket.remove()
        await asyncio.to_thread(self._auth.watch.close)

    @property
    def addresses(self) -> dict[str, str]:
        """HOST:PORT of each listener."""
        return {"grpc": self.address, "http": self.http.address, "admin": self.admin.address}

    def _model_changed(self, host: ModelHost) -> None:
        ready = host.life.state is ModelState.READY
        self.health.set(f"models/{host.source.id}", ready)
        if host.source.id == self.catalog.default_id:
            self.health.set(INFERENCE, ready)


def serve(config: Config) -> int:
    """Run a server until a signal ends it; returns the exit code: 0 when every accepted call was served, 2 for settings
    that no server can start with."""
    set_up_logging(config.log_level, config.log_json)
    log_unhandled()
    raise_limit()
    try:
        preflight.check(config)
        _tell_shares(preflight.shares(config))
        return asyncio.run(_serve(config))
    except (AddressInUse, ModelSourceError, MlxGrpcError, ReadyFileError) as error:
        return _complain(error, FAILED)
    except (ListenError, AuthError, ConfigError) as error:
        return _complain(error, USAGE)


def _complain(error: Exception, code: int) -> int:
    sys.stderr.write(f"mlx-grpc: {escaped(str(error))}\n")
    return code


def _tell_shares(shares: Shares) -> None:
    if shares.few:
        log.warning(
            "at most %d files may be open (`ulimit -n`): gRPC takes %d connections, HTTP %d, the admin port %d",
            limit_now(), shares.grpc, shares.http, shares.admin,
        )  # fmt: skip


async def _serve(config: Config) -> int:
    server, now_asked = Server(config), asyncio.Event()

    def on_signal() -> None:
        (now_asked if server.stop_asked.is_set() else server.stop_asked).set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    served_all = True
    ready: ReadyFile | None = None
    try:
        await server.start()
        if await _unless(server.stop_asked, server.ready()) is not None:
            ready = _announce(server)
            await server.stop_asked.wait()
        log.info("draining for at most %g s; a second signal ends it now", config.drain_seconds)
        served_all = await _unless(now_asked, server.drain()) or False
    finally:
        if ready:
            ready.remove()
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


def _announce(server: Server) -> ReadyFile | None:
    """Tell people on stdout, and programs by the ready file, that calls are taken. Returns that file."""
    for host in server.catalog.hosts:
        info = host.info
        if info is not None:
            for note in info.notes:
                log.info("%s", note)
            log.info(
                "model %s: %s on %s, %.0f MB, context %d",
                host.source.id, info.dtype, info.device, info.weights_bytes / 1e6, host.context_length,
            )  # fmt: skip
    addresses = server.addresses
    scheme = "https://" if server.config.tls_cert else "http://"
    schemes = {"grpc": "gRPC on ", "http": f"OpenAI on {scheme}", "admin": f"status on {scheme}"}
    served = ", ".join(schemes[name] + where for name, where in addresses.items())
    path, written = server.config.ready_file, None
    if path:
        written = ready_file.write(path, {**addresses, "pid": os.getpid()})
    sys.stdout.write(f"mlx-grpc {__version__} SERVING {served}\n")
    sys.stdout.flush()
    return written
