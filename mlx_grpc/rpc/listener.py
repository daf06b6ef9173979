"""The grpc.aio server: its options, its servicers, its addresses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mlx_grpc.auth.access import Access
from mlx_grpc.auth.tls import Tls
from mlx_grpc.bounds.descriptors import MOST_CONNECTIONS
from mlx_grpc.bounds.intake import Intake
from mlx_grpc.config import Config
from mlx_grpc.listening import ListenError, check_free, host_and_port
from mlx_grpc.rpc.arrivals import Arrivals
from mlx_grpc.rpc.guard import Guard
from mlx_grpc.rpc.health import HealthServicer
from mlx_grpc.rpc.inference import InferenceServicer
from mlx_grpc.rpc.interceptor import CallInterceptor
from mlx_grpc.rpc.models import ModelServicer
from mlx_grpc.rpc.server_info import ServerInfoServicer
from mlx_grpc.rpc.tokenizer import TokenizerServicer
from mlx_grpc.rpc.unix_socket import SocketFile, take
from mlx_grpc.rpc.unregistered import AioServer
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import (
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    server_service_pb2,
    server_service_pb2_grpc,
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
)

MIN_CLIENT_PING_SECONDS = 10
MAX_STREAMS_PER_CONNECTION = 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_CONNECTIONS = MOST_CONNECTIONS
"""On each address; one more is closed at once. Connections that never finish their handshake count as well. Fewer where
few files may be open."""
UNREAD_BYTES_PER_CALL = 16 * 1024
HANDSHAKE_SECONDS = 20

INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
_OURS = (
    INFERENCE,
    tokenizer_service_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    server_service_pb2.DESCRIPTOR.services_by_name["ServerService"].full_name,
)


def make_server(
    service: Service,
    health: HealthServicer,
    config: Config,
    access: Access,
    intake: Intake,
    connections: int = MAX_CONNECTIONS,
) -> grpc.aio.Server:
    """A server with all services, listening nowhere yet. It takes so many connections on each address."""
    guard = Guard(Arrivals(intake, config.max_request_bytes, config.max_queue))
    interceptor = CallInterceptor(access, guard, MAX_HEADER_BYTES)
    server: Any = AioServer([interceptor], _options(config, connections), access)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(
        InferenceServicer(service, config.slow_reader_seconds), server
    )
    tokenizer_service_pb2_grpc.add_TokenizerServiceServicer_to_server(TokenizerServicer(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelServicer(service, config.allow_model_management, access), server
    )
    server_service_pb2_grpc.add_ServerServiceServicer_to_server(ServerInfoServicer(service, config), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (*_OURS, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    symbols: Any = _Symbols()
    reflection.enable_server_reflection(names, server, symbols)
    made: grpc.aio.Server = server
    return made


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens: HOST:PORT with the port that it is, and its Unix socket, which is to be removed when the
    server has ended."""

    address: str
    socket: SocketFile | None = None


def listen(server: grpc.aio.Server, config: Config, tls: Tls | None = None) -> Listening:
    """Listen where the settings say. Raises ListenError."""
    address = host_and_port(config.host, config.grpc_port)
    check_free(config.host, config.grpc_port, "--grpc-port")
    path = config.grpc_socket
    socket = take(path, "--grpc-socket", lambda hidden: _bind(server, hidden)) if path else None
    try:
        port = server.add_secure_port(address, tls.grpc_credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        if socket:
            socket.remove()
        raise ListenError(f"cannot listen on {address}: {error}") from None
    return Listening(host_and_port(config.host, port), socket)


def _bind(server: grpc.aio.Server, path: Path) -> None:
    """Without TLS: only this user reaches it."""
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise ListenError(f"--grpc-socket: {error}") from None


def _options(config: Config, connections: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second server must not share the port in silence
        ("grpc.max_receive_message_length", config.max_request_bytes),
        # What a call may send before anybody reads it: grpc bounds it for each call, not for a connection, and would
        # widen it on fast links. A message that is being read gets all the room that it needs.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", UNREAD_BYTES_PER_CALL),
        ("grpc.max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.max_allowed_incoming_connections", min(connections, MAX_CONNECTIONS)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        ("grpc.keepalive_time_ms", round(config.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", round(config.keepalive_timeout_seconds * 1000)),
        # grpc waits this long for an answer to any ping, keepalive's too: a minute, if not told.
        ("grpc.http2.ping_timeout_ms", round(config.keepalive_timeout_seconds * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_CLIENT_PING_SECONDS * 1000),
    ]


class _Symbols:
    """The descriptors that reflection serves. protobuf's own pool does not find methods by their names, which clients
    ask for (grpc/grpc#34743)."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """The file of a message, an enum, a service, or a service's method. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file
