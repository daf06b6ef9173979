"""`mlx-grpc status`: what a server is, what it has, and whether it takes requests; once, or live."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mlx_grpc.cli import flags
from mlx_grpc.cli.as_json import plain
from mlx_grpc.cli.failure import Failure, explain
from mlx_grpc.cli.terminal import human_bytes, make_table, print_table, say
from mlx_grpc.client import Client, HealthStatus, Model, ServerInfo
from mlx_grpc.client.channel import DEFAULT_TARGET
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.observe.text import escaped, json_line

CALL_SECONDS = 5.0
INFERENCE = "mlx_grpc.v1.InferenceService"
HEADERS = ("MODEL", "STATE", "HEALTH", "CONTEXT", "DTYPE", "WEIGHTS", "KV PER TOKEN", "BATCHING", "ERROR")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server at one moment. `health` is by service: "" is the process."""

    target: str
    health: dict[str, HealthStatus]
    info: ServerInfo
    models: tuple[Model, ...]


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on, until Ctrl-C.")] = False,
    interval_seconds: Annotated[float, typer.Option(min=0.1, help="With --watch: how often.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one line each time.")] = False,
    target: flags.Target = DEFAULT_TARGET,
    token: flags.Token = None,
    tls: flags.Tls = False,
) -> None:
    """Shows a server's versions, device, limits, models and health."""
    with flags.calling(target, token, tls, timeout_seconds=CALL_SECONDS, retry=False) as client:
        if not watch:
            _print(take(client), as_json)
        elif not as_json and _can_redraw(console := Console()):
            _watch_live(client, interval_seconds, console)
        else:
            _watch_lines(client, interval_seconds, as_json)


def take(client: Client) -> Snapshot:
    """Asks the server for all of it."""
    info = client.server_info()
    models = tuple(client.list_models())
    services = ["", INFERENCE, *(f"models/{model.id}" for model in models)]
    return Snapshot(client.target, {name: client.health(name) for name in services}, info, models)


def heading(snapshot: Snapshot) -> list[str]:
    """The lines above the models."""
    info, limits = snapshot.info, snapshot.info.limits
    versions = [f"mlx-grpc {info.version}"]
    versions += [f"mlx {info.mlx_version}"] if info.mlx_version else []
    versions += [f"mlx_lm {info.mlx_lm_version}"] if info.mlx_lm_version else []
    device = " ".join(part for part in (info.backend, info.device) if part)
    process, inference = snapshot.health[""], snapshot.health[INFERENCE]
    return [
        f"{snapshot.target}: process {process.value}, inference {inference.value}",
        ", ".join(versions) + (f" on {device}" if device else ""),
        f"at most {limits.max_batch} at once and {limits.max_queue} waiting for each model, "
        f"{human_bytes(limits.max_request_bytes)} a message",
    ]


def rows(snapshot: Snapshot) -> list[tuple[str, ...]]:
    """One row a model, under HEADERS."""
    return [
        (
            one.id + (" (default)" if one.default else ""),
            one.state.value,
            snapshot.health[f"models/{one.id}"].value,
            str(one.context_length),
            one.dtype,
            human_bytes(one.weights_bytes),
            human_bytes(one.kv_bytes_per_token),
            one.batching,
            one.error,
        )
        for one in snapshot.models
    ]


def _print(snapshot: Snapshot, as_json: bool) -> None:
    if as_json:
        say(json_line(plain(snapshot)))
        return
    for line in heading(snapshot):
        say(escaped(line))
    print_table(HEADERS, rows(snapshot))


def _can_redraw(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


def _watch_live(client: Client, interval_seconds: float, console: Console) -> None:
    """Redraws until Ctrl-C, which is how one leaves it; a server that goes away is shown and waited for."""
    never = threading.Event()
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_drawn(client), refresh=True)
                never.wait(interval_seconds)
    except KeyboardInterrupt:
        return


def _drawn(client: Client) -> Group:
    try:
        snapshot = take(client)
    except MlxGrpcError as error:
        return Group(Text(escaped(explain(error, client.target))))
    return Group(*(Text(escaped(line)) for line in heading(snapshot)), make_table(HEADERS, rows(snapshot)))


def _watch_lines(client: Client, interval_seconds: float, as_json: bool) -> None:
    never = threading.Event()
    try:
        while True:
            _print(take(client), as_json)
            never.wait(interval_seconds)
    except KeyboardInterrupt:
        return
    except MlxGrpcError as error:
        raise Failure(explain(error, client.target)) from error
