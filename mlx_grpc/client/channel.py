"""How a client reaches a server: target, credentials, retries, keepalive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from mlx_grpc import __version__

DEFAULT_TARGET = "localhost:50051"
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
# A request larger than this is committed when it is sent, and never retried; grpc's own 256 KiB is less than
# a prompt.
RETRY_BUFFER_BYTES = 4 * 1024 * 1024

OptionValue = str | int | float | bool


def service_config() -> str:
    """gRPC's service config: four attempts on UNAVAILABLE and RESOURCE_EXHAUSTED, 0.2 s, 0.4 s and 0.8 s
    apart (each varied by a fifth), or as long as the server's `grpc-retry-pushback-ms` says.

    gRPC never retries a call after its first message, and throttles: when half of the recent calls had to be
    retried, it stops retrying until some succeed, so that clients do not feed a storm.
    """
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.2s",
        "maxBackoff": "5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }
    return json.dumps(
        {
            "methodConfig": [{"name": [{}], "retryPolicy": policy}],
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """Everything that makes a channel. See `Client` for what each means."""

    target: str = DEFAULT_TARGET
    tls: bool = False
    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None
    token: str | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    timeout_seconds: float | None = None
    retry: bool = True

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other with a ValueError."""
        if not self.target:
            raise ValueError("target is empty: give HOST:PORT or unix:PATH")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ValueError("token: only printable ASCII characters can be sent")
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("private_key and certificate_chain go together: give both or neither")

    @property
    def secure(self) -> bool:
        """Whether the channel uses TLS: when asked to, and when any certificate is given."""
        return self.tls or self.root_certificates is not None or self.private_key is not None

    def credentials(self) -> grpc.ChannelCredentials:
        """TLS credentials: gRPC's own roots unless `root_certificates` are given."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call. Without TLS the token is readable on the way."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel_options(self) -> list[tuple[str, Any]]:
        """The defaults, with the caller's own options over them."""
        options: dict[str, Any] = {
            "grpc.primary_user_agent": f"mlx-grpc-python/{__version__}",
            "grpc.keepalive_time_ms": 30_000,
            "grpc.keepalive_timeout_ms": 10_000,
            # A stream that waits in the queue sends nothing; pings must not run out meanwhile.
            "grpc.http2.max_pings_without_data": 0,
            "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
            "grpc.max_send_message_length": -1,  # the server has the limit and says which
        }
        if self.retry:
            options["grpc.service_config"] = service_config()
            options["grpc.per_rpc_retry_buffer_size"] = RETRY_BUFFER_BYTES
        else:
            options["grpc.enable_retries"] = 0
        return list((options | dict(self.options)).items())

    def open_sync(self) -> grpc.Channel:
        """A channel for threads; it connects at its first call."""
        if self.secure:
            return grpc.secure_channel(self.target, self.credentials(), self.channel_options())
        return grpc.insecure_channel(self.target, self.channel_options())

    def open_aio(self) -> grpc.aio.Channel:
        """A channel for the running event loop; it connects at its first call."""
        if self.secure:
            return grpc.aio.secure_channel(self.target, self.credentials(), self.channel_options())
        return grpc.aio.insecure_channel(self.target, self.channel_options())
