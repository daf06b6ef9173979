"""The server's life on one screen: listen, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from mlx_grpc import preflight
from mlx_grpc.auth.setup import open_auth
from mlx_grpc.bounds.heap import Heap
from mlx_grpc.bounds.intake import Intake
from mlx_grpc.bounds.rates import ClientRates
from mlx_grpc.config import Config
from mlx_grpc.http.admin.app import make_admin_app
from mlx_grpc.http.openai.app import openai_app
from mlx_grpc.http.runner import HttpServer
from mlx_grpc.models.progress import make_progress
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.observe.stats import Stats
from mlx_grpc.observe.traces import open_tracing
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
