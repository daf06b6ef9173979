"""`mlx-grpc`: gathers the commands and turns what went wrong into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mlx_grpc import __version__
from mlx_grpc.cli.bench import bench
from mlx_grpc.cli.chat import chat
from mlx_grpc.cli.check import check
from mlx_grpc.cli.failure import Failure, UsageError
from mlx_grpc.cli.generate import generate
from mlx_grpc.cli.models import models
from mlx_grpc.cli.serve import serve
from mlx_grpc.cli.status import status
from mlx_grpc.cli.terminal import complain, say
from mlx_grpc.cli.token import token

DONE, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 130  # what typer makes of Ctrl-C

# Typer carries a copy of click and does not export its base class of usage errors.
_AnyUsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")

app = typer.Typer(
    name="mlx-grpc",
    help="Serves MLX language models over gRPC, and talks to servers that do.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(serve)
app.command()(generate)
app.command()(chat)
app.add_typer(models, name="models")
app.command()(status)
app.command()(check)
app.command()(token)
app.command()(bench)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"mlx-grpc {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serves MLX language models over gRPC, and talks to servers that do."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line (default: the process's own) and returns its exit code."""
    try:
        code = app(args=None if args is None else list(args), prog_name="mlx-grpc", standalone_mode=False)
    except Failure as failure:
        complain(str(failure))
        return FAILED
    except UsageError as error:
        complain(f"{error}; see `mlx-grpc --help`")
        return USAGE
    except _AnyUsageError as error:
        complain(_usage_line(error))
        return USAGE
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:
        complain("interrupted")
        return FAILED
    return code if isinstance(code, int) else DONE


def _usage_line(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "mlx-grpc"
    message = getattr(error, "format_message", error.__str__)()
    return f"{' '.join(str(message).split()).rstrip('.')}; see `{command} --help`"
