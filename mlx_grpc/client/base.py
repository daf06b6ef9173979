"""What `Client` and `AsyncClient` share: settings, and how a call of `calls` becomes a method."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from grpc_health.v1 import health_pb2

from mlx_grpc.client.channel import DEFAULT_TARGET, ChannelSettings, OptionValue
from mlx_grpc.client.requests import build as requests
from mlx_grpc.client.results import events, responses
from mlx_grpc.client.stubs import Stubs
from mlx_grpc.errors import MlxGrpcError


class BaseClient:
    """Holds the settings and starts calls; the two clients open and close the channel."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tls: bool = False,
        root_certificates: bytes | None = None,
        private_key: bytes | None = None,
        certificate_chain: bytes | None = None,
        token: str | None = None,
        options: Mapping[str, OptionValue] | None = None,
        timeout_seconds: float | None = None,
        retry: bool = True,
    ) -> None:
        """Settings of the channel; nothing is connected yet. Raises ValueError when they contradict each
        other.

        target: "HOST:PORT" or "unix:PATH".
        tls: encrypt, with gRPC's own root certificates; implied by any of the certificates.
        root_certificates, private_key, certificate_chain: PEM bytes; the last two, together, for mutual TLS.
        token: sent with each call as a bearer token, over TLS or not.
        options: gRPC channel options by name, over the client's own.
        timeout_seconds: the deadline of each call that names none itself; None is no deadline. The server
            knows it and drops what cannot be done in time.
        retry: try again, with growing pauses, what failed with UNAVAILABLE or RESOURCE_EXHAUSTED before its
            first message.
        """
        self._settings = ChannelSettings(
            target=target,
            tls=tls,
            root_certificates=root_certificates,
            private_key=private_key,
            certificate_chain=certificate_chain,
            token=token,
            options=options or {},
            timeout_seconds=timeout_seconds,
            retry=retry,
        )
        self._lock = threading.Lock()  # for opening and closing; never held during a call
        self._channel: Any = None
        self._open_stubs: Stubs | None = None
        self._closed = False

    @property
    def target(self) -> str:
        """What the client calls."""
        return self._settings.target

    @property
    def _stubs(self) -> Stubs:
        """The stubs of the open channel, which the first call opens."""
        raise NotImplementedError

    def _start(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        timeout = self._settings.timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return method(request, timeout=timeout, metadata=self._settings.metadata())
        except ValueError as error:  # grpc's word for a channel that another thread has closed just now
            if self._closed:
                raise MlxGrpcError("the client is closed") from error
            raise

    def _start_stream(self, prompt: str | None, timeout_seconds: float | None, options: Any) -> tuple[Any, Any]:
        request = requests.generate_request(prompt, **options)
        return self._start(self._stubs.inference.StreamGenerate, request, timeout_seconds), events.event

    def _start_watch(self, service: str, timeout_seconds: float | None) -> tuple[Any, Any]:
        request = health_pb2.HealthCheckRequest(service=service)
        return self._start(self._stubs.health.Watch, request, timeout_seconds), responses.health_status


def like(make: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a method the name, documentation and parameters of the call that it is made of."""
    functools.update_wrapper(method, make)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.signature(make)
    parameters = [itself, *signature.parameters.values()]
    method.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return method
