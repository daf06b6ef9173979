"""ModelService: lists, loads and unloads; and what calls get from a model that is not ready."""

from __future__ import annotations

import asyncio

import pytest

from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.server import Server
from mlx_grpc.v1 import model_pb2, model_service_pb2
from tests.helpers.rpc import Api, Request, Stop, connected, in_loop, read_all, read_until, refused, serving, stepped

READY, LOADING = model_pb2.MODEL_STATE_READY, model_pb2.MODEL_STATE_LOADING
UNLOADED, UNLOADING = model_pb2.MODEL_STATE_UNLOADED, model_pb2.MODEL_STATE_UNLOADING
FAILED = model_pb2.MODEL_STATE_FAILED


async def get(api: Api, name: str = "") -> model_pb2.Model:
    response: model_service_pb2.GetModelResponse = await api.models.GetModel(
        model_service_pb2.GetModelRequest(model=name or None)
    )
    return response.model


@in_loop
async def test_a_ready_model_tells_its_facts() -> None:
    """The default one is meant where no name is sent."""
    async with serving(Script(context_length=100, weights_bytes=5, kv_bytes_per_token=7)) as (_, api):
        model = await get(api)
        assert model == await get(api, "scripted")
    assert (model.id, model.state, model.default, model.error) == ("scripted", READY, True, "")
    assert (model.context_length, model.vocab_size, model.weights_bytes, model.kv_bytes_per_token) == (100, 512, 5, 7)
    assert set(model.features) == {model_pb2.MODEL_FEATURE_CHAT, model_pb2.MODEL_FEATURE_REPRODUCIBLE}


@in_loop
async def test_pages_of_models() -> None:
    """By id; each token leads to the next page, the last has none."""
    names = ["b", "a", "c"]
    async with serving(model=tuple(f"{name}=script:{{}}" for name in names)) as (_, api):
        ask = model_service_pb2.ListModelsRequest
        first = await api.models.ListModels(ask(page_size=2))
        second = await api.models.ListModels(ask(page_size=2, page_token=first.next_page_token))
        whole = await api.models.ListModels(ask())
    assert [model.id for model in first.models] == ["a", "b"]
    assert [model.id for model in second.models] == ["c"]
    assert (second.next_page_token, whole.next_page_token) == ("", "")
    assert [model.id for model in whole.models if model.default] == ["b"]


@pytest.mark.parametrize("size", [0, 1001])
@in_loop
async def test_a_page_has_a_bounded_size(size: int) -> None:
    """The error names the field."""
    async with serving() as (_, api):
        refusal = await refused(api.models.ListModels(model_service_pb2.ListModelsRequest(page_size=size)))
    assert (refusal.code, refusal.reason, refusal.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "page_size")


@in_loop
async def test_an_unknown_model_is_named() -> None:
    """In every service that takes a model."""
    async with serving() as (_, api):
        refusals = [
            await refused(api.answer(Request(model="nobody", prompt="hi"))),
            await refused(get(api, "nobody")),
        ]
    for refusal in refusals:
        assert (refusal.code, refusal.reason, refusal.resource) == ("NOT_FOUND", "MODEL_NOT_FOUND", "nobody")


@in_loop
async def test_management_is_the_operators_to_allow() -> None:
    """Without --allow-model-management, neither loading nor unloading."""
    async with serving() as (_, api):
        refusals = [
            await refused(api.models.LoadModel(model_service_pb2.LoadModelRequest(model="scripted"))),
            await refused(api.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="scripted"))),
        ]
        assert (await get(api)).state == READY
    assert {(refusal.code, refusal.reason) for refusal in refusals} == {("PERMISSION_DENIED", "WRONG_SCOPE")}


@pytest.mark.parametrize("name", ["", "/etc", "../up", "script:{}", "x=org/name", "a b"])
@in_loop
async def test_a_caller_loads_no_paths(name: str) -> None:
    """What the server's disk holds is the operator's alone."""
    async with serving(allow_model_management=True) as (server, api):
        refusal = await refused(api.models.LoadModel(model_service_pb2.LoadModelRequest(model=name)))
        assert len(server.catalog.hosts) == 1
    assert (refusal.code, refusal.reason, refusal.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "model")


@in_loop
async def test_unloading_lets_calls_finish() -> None:
    """UNLOADING until the running stream has ended, new calls refused; then loaded again, it answers."""
    async with stepped(allow_model_management=True) as (server, api, gate):
        call = api.stream(Request(prompt="hi", stop=Stop(max_tokens=5)))
        gate.step(2)
        await read_until(call, "delta")
        answer = await api.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="scripted"))
        assert answer.model.state == UNLOADING
        refusal = await refused(api.answer("hi"))
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DRAINING")
        gate.open()
        assert (await read_all(call))[-1].completed.usage.completion_tokens == 5
        host = server.catalog.get("")
        await host.life.settled()
        assert (await get(api)).state == UNLOADED
        assert host.engine_pid is None
        answer = await api.models.LoadModel(model_service_pb2.LoadModelRequest(model="scripted"))
        assert answer.model.state == LOADING
        await host.life.settled()
        assert await api.text(Request(prompt="hi", stop=Stop(max_tokens=5)))


@in_loop
async def test_forced_unloading_ends_calls() -> None:
    """As DRAINING, which says that somebody else may serve them."""
    async with stepped(allow_model_management=True) as (server, api, gate):
        call = api.stream("hi")
        gate.step(2)
        await read_until(call, "delta")
        await api.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="scripted", force=True))
        refusal = await refused(read_all(call))
        gate.open()
        await server.catalog.get("").life.settled()
        assert (await get(api)).state == UNLOADED
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DRAINING")
    assert refusal.trailing["x-generation-id"]


@in_loop
async def test_unloading_what_is_not_loaded_changes_nothing() -> None:
    """Both calls can be repeated."""
    async with serving(allow_model_management=True) as (server, api):
        for _ in range(2):
            await api.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="scripted"))
            await server.catalog.get("").life.settled()
            assert (await get(api)).state == UNLOADED
        for _ in range(2):
            await api.models.LoadModel(model_service_pb2.LoadModelRequest(model="scripted"))
        await server.catalog.get("").life.settled()
        assert (await get(api)).state == READY


async def _starting(script: str) -> Server:
    """A server that listens while its model still loads."""
    from mlx_grpc.config import Config
    from mlx_grpc.engine.link.thread import ThreadLink

    server = Server(Config(model=(f"scripted={script}",), grpc_port=0, http_port=0, admin_port=0), ThreadLink)
    await server.start()
    return server


@in_loop
async def test_a_loading_model_says_when_to_come_again() -> None:
    """MODEL_LOADING with a delay, for generation and for its tokenizer; then it is ready."""
    server = await _starting('script:{"load_seconds": 0.5}')
    try:
        async with connected(server.address) as api:
            refusal = await refused(api.answer("hi"))
            assert (await get(api)).state == LOADING
            await server.ready()
            assert await api.text(Request(prompt="hi", stop=Stop(max_tokens=2)))
    finally:
        await server.stop(0)
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "MODEL_LOADING")
    assert refusal.retry_seconds is not None
    assert refusal.retry_seconds > 0


@in_loop
async def test_a_failed_model_says_why() -> None:
    """MODEL_FAILED with the reason, in the answer and in the list; the server itself lives."""
    server = await _starting('script:{"load_error": "the weights are torn"}')
    try:
        async with connected(server.address) as api:
            await server.catalog.get("").life.settled()
            refusal = await refused(api.answer("hi"))
            model = await get(api)
    finally:
        await server.stop(0)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "MODEL_FAILED")
    assert "the weights are torn" in refusal.message
    assert (model.state, model.error) == (FAILED, "the weights are torn")


@in_loop
async def test_one_models_unloading_leaves_the_other_alone() -> None:
    """Two models, one server."""
    models = ("one=script:{}", "two=script:{}")
    async with serving(model=models, allow_model_management=True) as (server, api):
        await api.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="one"))
        await server.catalog.get("one").life.settled()
        refusal, text = await asyncio.gather(
            refused(api.answer("hi")), api.text(Request(model="two", prompt="hi", stop=Stop(max_tokens=2)))
        )
    assert refusal.resource == "one"
    assert text
