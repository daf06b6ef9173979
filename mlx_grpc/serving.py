"""A server as a process: its settings looked at, its signals, its one line on stdout, and its exit code."""

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
from mlx_grpc.bounds.descriptors import Shares, limit_now, raise_limit
from mlx_grpc.bounds.garbage import keep_for_good
from mlx_grpc.config import Config, ConfigError
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.listening import AddressInUse, ListenError
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.observe.logs import set_up_logging
from mlx_grpc.observe.text import escaped
from mlx_grpc.observe.unhandled import LoopErrors, log_unhandled
from mlx_grpc.ready_file import ReadyFile, ReadyFileError
from mlx_grpc.server import LAST_WRITES_SECONDS, Server

log = logging.getLogger(__name__)
Result = TypeVar("Result")

FAILED, USAGE = 1, 2
"""Exit codes, as all commands have them."""


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
            keep_for_good()  # before clients know of the server: what belongs to a call must not be kept
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
