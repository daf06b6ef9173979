"""The grpc.aio server: its options, its servicers, its addresses."""

from __future__ import annotations

import errno
import socket

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mlx_grpc.config import Config
from mlx_grpc.rpc.health import HealthServicer
from mlx_grpc.rpc.inference import InferenceServicer
from mlx_grpc.rpc.interceptor import CallInterceptor
from mlx_grpc.rpc.models import ModelServicer
from mlx_grpc.rpc.server_info import ServerInfoServicer
from mlx_grpc.rpc.tokenizer import TokenizerServicer
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

KEEPALIVE_SECONDS = 30
KEEPALIVE_TIMEOUT_SECONDS = 10
MIN_CLIENT_PING_SECONDS = 10
MAX_STREAMS_PER_CONNECTION = 1024
MAX_HEADER_BYTES = 16 * 1024

INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
_OURS = (
    INFERENCE,
    tokenizer_service_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    server_service_pb2.DESCRIPTOR.services_by_name["ServerService"].full_name,
)


class ListenError(Exception):
    """An address cannot be listened on; one line for a person."""


def make_server(service: Service, health: HealthServicer, config: Config) -> grpc.aio.Server:
    """A server with all services, listening nowhere yet."""
    server = grpc.aio.server(interceptors=[CallInterceptor()], options=_options(config))
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(InferenceServicer(service), server)
    tokenizer_service_pb2_grpc.add_TokenizerServiceServicer_to_server(TokenizerServicer(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelServicer(service, config.allow_model_management), server
    )
    server_service_pb2_grpc.add_ServerServiceServicer_to_server(ServerInfoServicer(service, config), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (*_OURS, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server


def listen(server: grpc.aio.Server, config: Config) -> str:
    """Listen where the settings say; returns "HOST:PORT" with the port that it is. Raises ListenError."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    check_free(config.host, config.grpc_port, "--grpc-port")
    try:
        port = server.add_insecure_port(f"{host}:{config.grpc_port}")
        if config.grpc_socket:
            server.add_insecure_port(f"unix:{config.grpc_socket}")
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {host}:{config.grpc_port}: {error}") from None
    return f"{host}:{port}"


def check_free(host: str, port: int, flag: str) -> None:
    """grpc tells of a port in use in many lines of its own; this asks first. Raises ListenError."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"port {port} on {host} is in use; choose another with {flag}, or 0 for any") from None
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _options(config: Config) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second server must not share the port in silence
        ("grpc.max_receive_message_length", config.max_request_bytes),
        ("grpc.max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_CLIENT_PING_SECONDS * 1000),
    ]
