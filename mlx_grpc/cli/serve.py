"""`mlx-grpc serve`: the flags are the fields of `mlx_grpc.config.Config`, no more and no fewer.

Each is None when not given, so that its environment variable (MLX_GRPC_ and the flag's name in capitals) or
Config's default holds: Config reads the environment, this file does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_grpc.cli.extras import serving_packages
from mlx_grpc.cli.failure import UsageError


def _flag(help_text: str, default: str) -> Any:
    return typer.Option(help=f"{help_text} [default: {default}]", show_default=False)


def serve(
    model: Annotated[
        list[str] | None,
        _flag("SOURCE or NAME=SOURCE, again for more; the first is the default.", "SmolLM2-135M-Instruct"),
    ] = None,
    host: Annotated[str | None, _flag("Address for gRPC and HTTP.", "127.0.0.1")] = None,
    grpc_port: Annotated[int | None, _flag("Port for gRPC; 0 picks a free one.", "50051")] = None,
    http_port: Annotated[int | None, _flag("Port for HTTP and WebSocket; 0 picks a free one.", "11436")] = None,
    admin_host: Annotated[str | None, _flag("Address for admin HTTP.", "127.0.0.1")] = None,
    admin_port: Annotated[int | None, _flag("Port for admin HTTP; 0 picks a free one.", "11437")] = None,
    grpc_socket: Annotated[Path | None, _flag("A Unix socket for gRPC besides the port.", "none")] = None,
    ready_file: Annotated[Path | None, _flag("File that gets the addresses, as JSON, once serving.", "none")] = None,
    cache_dir: Annotated[Path | None, _flag("Where imported models lie.", "the platform's cache")] = None,
    context_length: Annotated[int | None, _flag("Tokens of prompt and output together.", "the model's")] = None,
    max_queue: Annotated[int | None, _flag("Requests that may wait, for each model.", "256")] = None,
    max_queue_tokens: Annotated[int | None, _flag("Prompt tokens that may wait.", "1000000")] = None,
    max_batch: Annotated[int | None, _flag("Requests that run at once.", "64")] = None,
    prefill_step_tokens: Annotated[int | None, _flag("Prompt tokens between two decode steps.", "by device")] = None,
    memory_limit_bytes: Annotated[int | None, _flag("What the engines may use together.", "all there is")] = None,
    prefix_cache_bytes: Annotated[int | None, _flag("Caches of ended requests, 0 for none.", "536870912")] = None,
    ageing_seconds: Annotated[float | None, _flag("A waiting request rises a class after this.", "10")] = None,
    max_request_bytes: Annotated[int | None, _flag("Largest message taken.", "4194304")] = None,
    max_intake_bytes: Annotated[
        int | None, _flag("What all clients together may have sent and not yet got answered.", "50331648")
    ] = None,
    default_max_tokens: Annotated[int | None, _flag("Tokens when a request names no limit.", "512")] = None,
    drain_seconds: Annotated[float | None, _flag("How long requests may go on at the end.", "30")] = None,
    stall_seconds: Annotated[float | None, _flag("Nothing delivered for this long is a stall.", "30")] = None,
    slow_reader_seconds: Annotated[float | None, _flag("A stream that nobody reads this long ends.", "30")] = None,
    keepalive_seconds: Annotated[float | None, _flag("A connection silent for this long is pinged.", "30")] = None,
    keepalive_timeout_seconds: Annotated[float | None, _flag("An unanswered ping ends it after this.", "10")] = None,
    cors_origin: Annotated[
        list[str] | None, _flag("Origin whose pages may call over HTTP, again for more; * is any.", "none")
    ] = None,
    tls_cert: Annotated[Path | None, _flag("PEM file: the server's certificate and its chain.", "none")] = None,
    tls_key: Annotated[Path | None, _flag("PEM file: the certificate's key.", "none")] = None,
    tls_client_ca: Annotated[Path | None, _flag("PEM file: who signs the clients' certificates.", "none")] = None,
    tokens: Annotated[Path | None, _flag("File of tokens; `mlx-grpc token` makes its lines.", "none")] = None,
    insecure: Annotated[bool | None, _flag("Serve other machines without TLS or tokens.", "no")] = None,
    allow_model_management: Annotated[bool | None, _flag("Let clients load and unload models.", "no")] = None,
    trust_remote_code: Annotated[bool | None, _flag("Run code that a model brings along.", "no")] = None,
    log_level: Annotated[str | None, _flag("debug, info, warning or error.", "info")] = None,
    log_json: Annotated[bool | None, _flag("Log one JSON object a line.", "no")] = None,
    traces: Annotated[bool | None, _flag("Send OpenTelemetry spans where OTEL_ variables say.", "no")] = None,
) -> int:
    """Serves models until SIGTERM or Ctrl-C, then drains.

    Each flag is also an environment variable: MLX_GRPC_ and its name in capitals.
    """
    flags = dict(locals())
    flags["model"] = tuple(model) if model else None
    flags["cors_origin"] = tuple(cors_origin) if cors_origin else None
    with serving_packages("`serve`"):
        from mlx_grpc.config import ConfigError, load_config

        try:
            config = load_config(**flags)
        except ConfigError as error:
            raise UsageError(str(error)) from error
        from mlx_grpc import server
    return server.serve(config)
