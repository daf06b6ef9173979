"""Health, reflection and server info over a real channel."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlx_grpc import __version__
from mlx_grpc.config import Config
from mlx_grpc.engine.link.thread import ThreadLink
from mlx_grpc.rpc.context import Context
from mlx_grpc.rpc.health import HealthServicer
from mlx_grpc.server import Server
from mlx_grpc.v1 import server_pb2, server_service_pb2
from tests.helpers.rpc import Request, Stop, connected, in_loop, read_until, refused, serving, stepped

INFERENCE = "mlx_grpc.v1.InferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def ask(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


async def told(watch: Any) -> int:
    """The next status of a Watch."""
    response = await watch.read()
    assert response is not grpc.aio.EOF
    return int(response.status)


@in_loop
async def test_health_follows_a_model_through_its_life() -> None:
    """NOT_SERVING while it loads, SERVING when ready, NOT_SERVING in the drain, and then the Watch ends. The process
    serves from the start to the drain."""
    config = Config(model=('scripted=script:{"load_seconds": 0.3}',), grpc_port=0, http_port=0, admin_port=0)
    server = Server(config, ThreadLink)
    await server.start()
    try:
        async with connected(server.address) as api:
            names = (INFERENCE, "models/scripted", "")
            watches = [api.health.Watch(ask(name)) for name in names]
            assert [await told(watch) for watch in watches] == [NOT_SERVING, NOT_SERVING, SERVING]
            assert [await told(watch) for watch in watches[:2]] == [SERVING, SERVING]
            assert (await api.health.Check(ask(INFERENCE))).status == SERVING
            last = asyncio.gather(*(told(watch) for watch in watches))
            await server.drain()
            assert await last == [NOT_SERVING] * 3
            assert [await watch.read() for watch in watches] == [grpc.aio.EOF] * 3
            assert (await api.health.Check(ask(""))).status == NOT_SERVING
    finally:
        await server.stop(0)


@in_loop
async def test_open_watches_do_not_hold_up_the_end() -> None:
    """A server with watchers and without calls stops well within its grace."""
    async with serving() as (server, api):
        watch = api.health.Watch(ask(""))
        assert await told(watch) == SERVING
        last = asyncio.ensure_future(told(watch))  # a read that begins after a call's end gets nothing any more
        started_seconds = asyncio.get_running_loop().time()
        await server.server.stop(grace_seconds=20)
        assert asyncio.get_running_loop().time() - started_seconds < 20
        assert await last == NOT_SERVING


class DrainsWhileItTells(HealthServicer):
    """The drain begins when a status is on its way, and its writer has not gone on yet."""

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        async def write(response: health_pb2.HealthCheckResponse) -> None:
            await context.write(response)
            self.drain()

        await super().Watch(request, SimpleNamespace(write=write, peer=context.peer))  # type: ignore[arg-type]


@in_loop
async def test_a_drain_that_begins_while_a_status_is_told_is_told_too() -> None:
    """SERVING is never the last word of a Watch."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(DrainsWhileItTells(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with connected(f"127.0.0.1:{port}") as api:
            assert [answer.status async for answer in api.health.Watch(ask(""))] == [SERVING, NOT_SERVING]
    finally:
        await server.stop(0)


@in_loop
async def test_a_name_that_is_not_known() -> None:
    """Check says NOT_FOUND; Watch says SERVICE_UNKNOWN and waits for it to appear."""
    async with serving() as (_, api):
        refusal = await refused(api.health.Check(ask("nobody")))
        watch = api.health.Watch(ask("nobody"))
        assert await told(watch) == UNKNOWN
        watch.cancel()
    assert refusal.code == "NOT_FOUND"


@in_loop
async def test_the_list_has_all_of_them() -> None:
    """The process, the service, and each model."""
    async with serving() as (_, api):
        request = health_pb2.HealthListRequest()  # type: ignore[attr-defined]
        listed = await api.health.List(request)
    assert {name: answer.status for name, answer in listed.statuses.items()} == {
        "": SERVING, INFERENCE: SERVING, "models/scripted": SERVING,
    }  # fmt: skip


@in_loop
async def test_a_full_queue_is_serving() -> None:
    """Overload is no ill health: a load balancer that took such servers out would overload the rest."""
    async with stepped(max_batch=1, max_queue=1) as (_, api, gate):
        running = api.stream(Request(prompt="x", stop=Stop(max_tokens=2)))
        await gate.submit_sent.wait()
        waiting = api.stream(Request(prompt="x", stop=Stop(max_tokens=2)))
        await read_until(waiting, "queued")
        assert (await refused(api.answer("x"))).reason == "QUEUE_FULL"
        assert (await api.health.Check(ask(INFERENCE))).status == SERVING
        running.cancel()


@in_loop
async def test_reflection_lists_our_services() -> None:
    """And health and itself, so that grpcurl needs no protos."""
    async with serving() as (_, api):
        channel: Any = api.channel
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=INFERENCE),
        ]
        listed, found = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert {service.name for service in listed.list_services_response.service} == {
        *(f"mlx_grpc.v1.{name}Service" for name in ("Inference", "Tokenizer", "Model", "Server")),
        "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    assert found.file_descriptor_response.file_descriptor_proto


@in_loop
async def test_server_info_tells_limits_and_features() -> None:
    """As configured."""
    async with serving(max_queue=9, max_batch=3, allow_model_management=True) as (_, api):
        info = await api.info.GetServerInfo(server_service_pb2.GetServerInfoRequest())
    assert (info.version, info.default_model, info.device) == (__version__, "scripted", "script")
    assert (info.limits.max_queue, info.limits.max_batch, info.limits.default_max_tokens) == (9, 3, 512)
    assert list(info.features) == [server_pb2.SERVER_FEATURE_MODEL_MANAGEMENT]
