"""`mlx-grpc models`: what this machine has, or a server; fetching and removing models here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_grpc.cli import flags
from mlx_grpc.cli.as_json import plain
from mlx_grpc.cli.extras import serving_packages
from mlx_grpc.cli.failure import Failure
from mlx_grpc.cli.terminal import human_bytes, print_table, say
from mlx_grpc.client.channel import DEFAULT_TARGET
from mlx_grpc.observe.text import escaped, json_line

models = typer.Typer(help="Lists, fetches and removes models.", rich_markup_mode=None)

CacheDir = Annotated[Path | None, typer.Option(envvar="MLX_GRPC_CACHE_DIR", help="Where imported models lie.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@models.command("list")
def list_models(
    server: Annotated[bool, typer.Option("--server", help="What the server has, not this machine.")] = False,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
    target: flags.Target = DEFAULT_TARGET,
    token: flags.Token = None,
    tls: flags.Tls = False,
) -> None:
    """Lists the models on this machine, or those of a server."""
    if server:
        _list_served(target, token, tls, as_json)
        return
    with serving_packages("`models list`"):
        from mlx_grpc.models import registry

        known = registry.list_models(cache_dir)
    if as_json:
        say(json_line([plain(model) | {"path": str(model.path)} for model in known]))
        return
    rows = [(one.name, one.kind, human_bytes(one.size_bytes), one.revision[:12], one.source) for one in known]
    print_table(("NAME", "KIND", "SIZE", "REVISION", "SOURCE"), rows)


def _list_served(target: str, token: str | None, tls: bool, as_json: bool) -> None:
    with flags.calling(target, token, tls, timeout_seconds=10, retry=False) as client:
        served = list(client.list_models())
    if as_json:
        say(json_line([plain(model) for model in served]))
        return
    rows = [
        (
            one.id + (" (default)" if one.default else ""),
            one.state.value,
            str(one.context_length),
            one.dtype,
            human_bytes(one.weights_bytes),
            one.batching,
            one.error,
        )
        for one in served
    ]
    print_table(("ID", "STATE", "CONTEXT", "DTYPE", "WEIGHTS", "BATCHING", "ERROR"), rows)


@models.command()
def pull(
    source: Annotated[
        str, typer.Argument(help="org/name[@revision], a folder, a .gguf file; nothing: the default model.")
    ] = "",
    cache_dir: CacheDir = None,
) -> None:
    """Fetches a model, so that `serve` finds it here; prints its name and folder."""
    with serving_packages("`models pull`"):
        from mlx_grpc.models import fetch, progress, sources

        try:
            model = fetch.resolve(sources.parse(source), cache_dir, progress.make_progress())
        except sources.ModelSourceError as error:
            raise Failure(str(error)) from error
    say(f"{escaped(model.model_id)}\t{escaped(str(model.folder))}")


@models.command()
def remove(
    name: Annotated[str, typer.Argument(help="The model's name, as `mlx-grpc models list` shows it.")],
    cache_dir: CacheDir = None,
) -> None:
    """Removes a model, all revisions of it, from this machine."""
    with serving_packages("`models remove`"):
        from mlx_grpc.models import registry, sources

        try:
            freed_bytes = registry.remove(name, cache_dir)
        except sources.ModelSourceError as error:
            raise Failure(str(error)) from error
    say(f"removed {escaped(name)}: {human_bytes(freed_bytes)} freed")
