"""The server's settings: one frozen Config, units in its names, and the only reader of the environment.

A flag of `mlx-grpc serve` wins over its environment variable (`MLX_GRPC_` and its name in capitals), which wins over
the default here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, Field(min_length=1, max_length=253)]
Seconds = Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
Amount = Annotated[int, Field(ge=1, le=10**12)]
Bytes = Annotated[int, Field(le=2**50)]
LogLevel = Literal["debug", "info", "warning", "error"]

ENV_PREFIX = "MLX_GRPC_"
ANY_ORIGIN = "*"
MAX_SHOWN = 60
"""Characters of a wrong value that a message repeats."""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


class ConfigError(Exception):
    """A setting that cannot be; one line for a person."""


class Config(BaseSettings):
    """Everything that `serve` takes. Field names are the flags' names."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    model: Annotated[tuple[str, ...], NoDecode] = ()
    """Sources, `NAME=SOURCE` for an alias; the first is the default. In the environment: separated by commas."""
    host: Host = "127.0.0.1"
    grpc_port: Port = 50051
    http_port: Port = 11436
    admin_host: Host = "127.0.0.1"
    admin_port: Port = 11437
    grpc_socket: Path | None = None
    """A Unix socket to serve gRPC on besides the port."""
    ready_file: Path | None = None

    cache_dir: Path | None = None
    """Where imported models lie; the platform's cache folder when not given."""
    context_length: Tokens | None = None
    """Tokens of prompt and output together; the model's own when not given, which is also the most it can be."""
    max_queue: Annotated[int, Field(ge=0, le=100_000)] = 256
    max_queue_tokens: Tokens = 1_000_000
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 64
    client_requests_per_minute: Amount | None = None
    """What one client may have: a token's bearer, and without tokens an address. No limit when not given."""
    client_tokens_per_minute: Amount | None = None
    """Of prompts and outputs together. Running requests go on when it is reached; new ones are refused."""
    client_rows: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Of the batch of each model at once; more wait in the queue."""
    client_waiting: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Requests in the queue of each model at once; more are refused."""
    prefill_step_tokens: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Prompt tokens processed between two decode steps; when not given the engine chooses for its device."""
    memory_limit_bytes: Annotated[Bytes, Field(ge=1)] | None = None
    """What the engines may use together; what the device has when not given."""
    prefix_cache_bytes: Annotated[Bytes, Field(ge=0)] = 512 * 1024 * 1024
    """KV caches of ended requests, kept for those that begin alike; for each model. 0 keeps none."""
    ageing_seconds: Seconds = 10.0
    max_request_bytes: Annotated[int, Field(ge=4096, le=1 << 30)] = 4 * 1024 * 1024
    max_intake_bytes: Annotated[Bytes, Field(ge=4096)] | None = None
    """What all clients together may have sent and not yet got answered: 40 MiB when not given, and never less than two
    messages. One connection may have 16 MiB of it, or one message where that is more."""
    default_max_tokens: Tokens = 512
    drain_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 30.0
    stall_seconds: Seconds = 30.0
    """An engine that has work and delivers nothing for so long is replaced."""
    slow_reader_seconds: Seconds = 30.0
    """A stream whose reader takes nothing for so long is ended."""
    keepalive_seconds: Seconds = 30.0
    """A connection that was silent for so long is pinged."""
    keepalive_timeout_seconds: Seconds = 10.0
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
    log_level: LogLevel = "info"
    log_json: bool = False
    """One JSON object a line, for programs that collect logs."""
    traces: bool = False
    """OpenTelemetry spans, sent where the usual OTEL_ variables say; those turn it on as well."""

    @field_validator("model", "cors_origin", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("cors_origin")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """As browsers send them: in small letters, and without a path."""
        origins = tuple(origin.lower() for origin in value)
        for origin in origins:
            found = _ORIGIN.fullmatch(origin)
            if origin != ANY_ORIGIN and not (found and int(found["port"] or 0) <= 65535):
                raise ValueError(f"{origin!r} is not an origin: give scheme://host[:port], or {ANY_ORIGIN}")
        return origins

    @model_validator(mode="after")
    def _check_ports(self) -> Config:
        taken: dict[tuple[str, int], str] = {}
        listeners = (
            ("--grpc-port", self.host, self.grpc_port),
            ("--http-port", self.host, self.http_port),
            ("--admin-port", self.admin_host, self.admin_port),
        )
        for flag, host, port in listeners:
            if port and (other := taken.setdefault((host, port), flag)) != flag:
                raise ValueError(f"{other} and {flag} are both {port}: give one of them another port, or 0 for any")
        return self


def load_config(**flags: Any) -> Config:
    """The settings with these flags over the environment; a flag that is None was not given.

    Raises ConfigError with one line that names the setting, and says whether a flag or a variable gave it.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Config(**given)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # in our own words
            message = str(first["msg"]).removeprefix("Value error, ")
        else:
            message = _in_words(str(first["msg"]), first.get("input"))
        if not first["loc"]:  # of several settings together
            raise ConfigError(message) from None
        name = str(first["loc"][0])
        where = f"--{name.replace('_', '-')}" if name in given else f"{ENV_PREFIX}{name.upper()}"
        raise ConfigError(f"{where}: {message}") from None


def _in_words(message: str, value: Any) -> str:
    """pydantic's message, as one says it, and the value that it is about."""
    for theirs, ours in (("Input should be", "must be"), ("String should have", "must have")):
        message = message.replace(theirs, ours)
    said = repr(value)
    return f"{message}, not {said}" if len(said) <= MAX_SHOWN else message


def asks_for_traces() -> bool:
    """Whether OpenTelemetry's own variables say where spans go, and do not turn it off."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return not off and any(os.environ.get(name) for name in endpoints)
