"""The Python client: `Client` for threads, `AsyncClient` for asyncio; it needs neither MLX nor transformers.

    from mlx_grpc.client import Client

    with Client("localhost:50051") as client:
        print(client.generate("The capital of France is", max_tokens=8).text)

        with client.stream(messages=[{"role": "user", "content": "Hello!"}]) as stream:
            for text in stream.text():
                print(text, end="", flush=True)

Leaving a stream (break, `close()`, the end of its `with` block, losing the last reference) cancels the call,
and the server takes it out of its batch. Every failure is a class of `mlx_grpc.errors`, with
`retry_after_seconds`, `field` and `metadata` where the server sent them; the gRPC error is its `__cause__`.
"""

from mlx_grpc.client.aio import AsyncClient
from mlx_grpc.client.errors import Cancelled, ResourceExhausted
from mlx_grpc.client.requests.options import GenerateOptions
from mlx_grpc.client.results.data import (
    Generation,
    HealthStatus,
    Model,
    ModelState,
    RenderedChat,
    ServerInfo,
    ServerLimits,
    TokenCount,
    Tokens,
)
from mlx_grpc.client.streams import AsyncStream, AsyncWatch, Stream, Watch
from mlx_grpc.client.sync import Client

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "AsyncWatch",
    "Cancelled",
    "Client",
    "GenerateOptions",
    "Generation",
    "HealthStatus",
    "Model",
    "ModelState",
    "RenderedChat",
    "ResourceExhausted",
    "ServerInfo",
    "ServerLimits",
    "Stream",
    "TokenCount",
    "Tokens",
    "Watch",
]
