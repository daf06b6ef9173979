"""`mlx-grpc token`: makes a bearer token, says it once, and keeps nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_grpc.cli.failure import UsageError
from mlx_grpc.cli.terminal import say


def token(
    name: Annotated[str, typer.Argument(help="Whose it is, for the file alone.")],
    admin: Annotated[bool, typer.Option("--admin", help="May also load models, cancel calls and drain.")] = False,
) -> None:
    """Makes a bearer token, and the line that makes it known to `mlx-grpc serve --tokens FILE`.

    The first line printed is the token, for the client; the second is for the file. Nothing keeps the token.
    """
    from mlx_grpc.auth.failure import AuthError
    from mlx_grpc.auth.tokens import TokenScope, make_token

    try:
        made, line = make_token(name, TokenScope.ADMIN if admin else TokenScope.GENERATE)
    except AuthError as error:
        raise UsageError(str(error)) from None
    say(made)
    say(line)
