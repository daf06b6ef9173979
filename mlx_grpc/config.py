"""The server's settings: one frozen Config, units in its names, and the only reader of the environment.

A flag of `mlx-grpc serve` wins over its environment variable (`MLX_GRPC_` and its name in capitals), which wins over
the default here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(Exception):
    """A setting that cannot be; one line for a person."""


class Config(BaseSettings):
    """Everything that `serve` takes. Field names are the flags' names."""

    model_config = SettingsConfigDict(env_prefix="MLX_GRPC_", frozen=True, extra="forbid", env_ignore_empty=True)

    model: Annotated[tuple[str, ...], NoDecode] = ()
    """Sources, `NAME=SOURCE` for an alias; the first is the default. In the environment: separated by commas."""
    host: str = "127.0.0.1"
    grpc_port: Port = 50051
    http_port: Port = 11436
    admin_host: str = "127.0.0.1"
    admin_port: Port = 11437
    grpc_socket: Path | None = None
    """A Unix socket to serve gRPC on besides the port."""
    ready_file: Path | None = None

    cache_dir: Path | None = None
    """Where imported models lie; the platform's cache folder when not given."""
    context_length: Annotated[int, Field(ge=0)] = 0
    """Tokens of prompt and output together; 0 is the model's own, which is also the most it can be."""
    max_queue: Annotated[int, Field(ge=0, le=100_000)] = 256
    max_queue_tokens: Annotated[int, Field(ge=1)] = 1_000_000
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 64
    prefill_step_tokens: Annotated[int, Field(ge=0, le=65536)] = 0
    """Prompt tokens processed between two decode steps; 0 lets the engine choose for its device."""
    memory_limit_bytes: Annotated[int, Field(ge=0)] = 0
    """What the engines may use together; 0 is what the device has."""
    prefix_cache_bytes: Annotated[int, Field(ge=0)] = 512 * 1024 * 1024
    """KV caches of ended requests, kept for those that begin alike; for each model. 0 keeps none."""
    ageing_seconds: Annotated[float, Field(gt=0)] = 10.0
    max_request_bytes: Annotated[int, Field(ge=4096, le=1 << 30)] = 4 * 1024 * 1024
    default_max_tokens: Annotated[int, Field(ge=1)] = 512
    drain_seconds: Annotated[float, Field(ge=0)] = 30.0
    stall_seconds: Annotated[float, Field(gt=0)] = 30.0
    """An engine that has work and delivers nothing for so long is replaced."""
    slow_reader_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A stream whose reader takes nothing for so long is ended."""
    keepalive_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A connection that was silent for so long is pinged."""
    keepalive_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """A ping without an answer for so long ends the connection and its calls."""
    cors_origin: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call the OpenAI-compatible port; `*` is every one. In the environment: with commas."""
    tls_cert: Path | None = None
    """PEM: the server's certificate and those that lead to its authority. Read again when it changes, as the key is."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """PEM: who signs the certificates that clients then need."""
    tokens: Path | None = None
    """Bearer tokens that calls then need, one `name:scopes:sha256hex` a line. Read again when it changes."""
    insecure: bool = False
    """Serve other machines without TLS or tokens."""
    allow_model_management: bool = False
    trust_remote_code: bool = False
    log_level: str = "info"
    log_json: bool = False
    """One JSON object a line, for programs that collect logs."""
    traces: bool = False
    """OpenTelemetry spans, sent where the usual OTEL_ variables say; those turn it on as well."""

    @field_validator("model", "cors_origin", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def load_config(**flags: Any) -> Config:
    """The settings with these flags over the environment; a flag that is None was not given.

    Raises ConfigError with one line that names the setting.
    """
    try:
        return Config(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--{name.replace('_', '-')}: {first['msg']}") from None


def asks_for_traces() -> bool:
    """Whether OpenTelemetry's own variables say where spans go, and do not turn it off."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return not off and any(os.environ.get(name) for name in endpoints)
