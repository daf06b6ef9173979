"""Flags that several commands have, said once. A flag that is None is not sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from mlx_grpc.cli.failure import Failure, UsageError, explain
from mlx_grpc.client import Client
from mlx_grpc.errors import MlxGrpcError

Target = Annotated[str, typer.Option(envvar="MLX_GRPC_TARGET", help="The server: HOST:PORT or unix:PATH.")]
Token = Annotated[str | None, typer.Option(envvar="MLX_GRPC_TOKEN", help="Bearer token to send.", show_envvar=True)]
Tls = Annotated[bool, typer.Option("--tls", help="Encrypt, and check the server's certificate.")]

Model = Annotated[str | None, typer.Option(help="The model's id; the server's default when not given.")]
System = Annotated[str | None, typer.Option(help="A system message to begin with.")]
MaxTokens = Annotated[int | None, typer.Option(help="At most this many tokens.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy, 1 the model's own distribution.")]
TopP = Annotated[float | None, typer.Option(help="Keep the likeliest tokens that reach this probability.")]
TopK = Annotated[int | None, typer.Option(help="Keep this many of the likeliest tokens; 0 keeps all.")]
MinP = Annotated[float | None, typer.Option(help="Keep tokens this many times as likely as the likeliest.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1: repeated tokens get less likely.")]
PresencePenalty = Annotated[float | None, typer.Option(help="Subtracted once for each token in the output.")]
FrequencyPenalty = Annotated[float | None, typer.Option(help="Subtracted for each time a token was used.")]
Seed = Annotated[int | None, typer.Option(help="Makes the random choices repeatable.")]
StopStrings = Annotated[list[str] | None, typer.Option("--stop", help="End here; may be given again.")]
TimeoutSeconds = Annotated[float | None, typer.Option(help="Give up after this many seconds.")]


@contextmanager
def calling(
    target: str,
    token: str | None,
    tls: bool,
    *,
    timeout_seconds: float | None = None,
    retry: bool = True,
) -> Iterator[Client]:
    """A client for the block; what goes wrong in a call becomes a Failure that says what to do."""
    try:
        made = Client(target, tls=tls, token=token, timeout_seconds=timeout_seconds, retry=retry)
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        with made as client:
            yield client
    except MlxGrpcError as error:
        raise Failure(explain(error, target)) from error
