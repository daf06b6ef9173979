"""The generated stubs of all services over one channel."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2_grpc

from mlx_grpc.v1 import (
    inference_service_pb2_grpc,
    model_service_pb2_grpc,
    server_service_pb2_grpc,
    tokenizer_service_pb2_grpc,
)


class Stubs:
    """One stub a service. Typed as Any: a stub's methods are blocking or awaitable as its channel is."""

    def __init__(self, channel: Any) -> None:
        inference: Any = inference_service_pb2_grpc.InferenceServiceStub
        tokenizer: Any = tokenizer_service_pb2_grpc.TokenizerServiceStub
        model: Any = model_service_pb2_grpc.ModelServiceStub
        server: Any = server_service_pb2_grpc.ServerServiceStub
        health: Any = health_pb2_grpc.HealthStub
        self.inference: Any = inference(channel)
        self.tokenizer: Any = tokenizer(channel)
        self.model: Any = model(channel)
        self.server: Any = server(channel)
        self.health: Any = health(channel)
