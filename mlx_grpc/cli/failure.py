"""What a command cannot do, as one line for a person that says what to do about it."""

from __future__ import annotations

from collections.abc import Callable

from mlx_grpc import errors
from mlx_grpc.errors import MlxGrpcError


class Failure(Exception):
    """A command failed for an expected reason; `main` prints the text and exits with 1."""


class UsageError(Exception):
    """The command line, or the environment, asks for what cannot be; `main` exits with 2."""


def explain(error: MlxGrpcError, target: str) -> str:
    """The one line for an error of a call to `target`."""
    message = " ".join(error.message.split())
    if type(error) is errors.Unavailable and not error.metadata.get("reason"):
        return f"no server answers at {target}: start one with `mlx-grpc serve`, or name one with --target ({message})"
    for kind, advice in _ADVICE.items():
        if isinstance(error, kind):
            return f"{message}: {advice(error)}"
    return message


def _again(error: MlxGrpcError) -> str:
    seconds = error.retry_after_seconds
    return "try again later" if seconds is None else f"try again in {max(seconds, 0.1):.1f} s"


def _models(_: MlxGrpcError) -> str:
    return "`mlx-grpc models list --server` shows what the server has"


def _token(_: MlxGrpcError) -> str:
    return "give a token with --token or MLX_GRPC_TOKEN"


def _log(error: MlxGrpcError) -> str:
    error_id = error.metadata.get("error_id")
    return f"look for {error_id} in the server's log" if error_id else "the server's log says more"


_ADVICE: dict[type[MlxGrpcError], Callable[[MlxGrpcError], str]] = {
    errors.QueueFull: _again,
    errors.IntakeFull: _again,
    errors.RateLimited: _again,
    errors.ModelLoading: _again,
    errors.Draining: _again,
    errors.ModelNotFound: _models,
    errors.NoToken: _token,
    errors.WrongScope: _token,
    errors.InternalError: _log,
}
