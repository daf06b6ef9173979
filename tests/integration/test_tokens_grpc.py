"""Bearer tokens over gRPC: every method but health needs one, and a line taken out counts at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlx_grpc import testing
from mlx_grpc.v1 import (
    inference_service_pb2,
    model_service_pb2,
    server_service_pb2,
    tokenizer_service_pb2,
)
from tests.helpers.auth import TokenFolder
from tests.helpers.rpc import Api, Request, connected, in_loop, read_all, refused, serving, text_of

SCRIPT = testing.Script(replies={"ping": "pong"})
MODULES = (inference_service_pb2, model_service_pb2, server_service_pb2, tokenizer_service_pb2)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
Metadata = tuple[tuple[str, str], ...]


def with_token(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def guarded(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[TokenFolder, Api]]:
    """A server that needs tokens."""
    tokens = TokenFolder(tmp_path)
    async with serving(SCRIPT, tokens=tokens.path, **settings) as (_, api):
        yield tokens, api


async def raw_call(api: Api, method: str, message: bytes, metadata: Metadata = ()) -> str:
    """The status of a call of bytes."""
    make: Any = api.channel.unary_unary(method)
    call = make(message, metadata=metadata)
    with suppress(grpc.aio.AioRpcError):
        await call
    code: grpc.StatusCode = await call.code()
    return code.name


@in_loop
async def test_every_method_needs_a_token(tmp_path: Path) -> None:
    """Whatever its message is, and whether there is such a method or not; with a token it is another answer."""
    async with guarded(tmp_path) as (tokens, api):
        for method in (*METHODS, "/mlx_grpc.v1.InferenceService/Unheard", "/no.such.Service/Method"):
            assert await raw_call(api, method, b"\xff\xff") == "UNAUTHENTICATED", method
            assert await raw_call(api, method, b"\xff\xff", with_token(tokens.admin)) != "UNAUTHENTICATED", method


@in_loop
async def test_the_refusals_say_their_reason(tmp_path: Path) -> None:
    """NO_TOKEN for none and for an unknown one, on single answers and on streams, and nothing quotes the token."""
    async with guarded(tmp_path) as (_, api):
        for metadata in ((), with_token("mlxgrpc_unheard-of"), (("authorization", "Basic dTpw"),)):
            for call in (api.answer("ping", metadata=metadata), read_all(api.stream("ping", metadata=metadata))):
                refusal = await refused(call)
                assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "NO_TOKEN")
                assert "unheard" not in refusal.message


@in_loop
async def test_a_token_lets_generate(tmp_path: Path) -> None:
    """Either scope does."""
    async with guarded(tmp_path) as (tokens, api):
        for token in (tokens.generate, tokens.admin):
            assert await api.text("ping", metadata=with_token(token)) == "pong"
            assert text_of(await read_all(api.stream("ping", metadata=with_token(token)))) == "pong"


@in_loop
async def test_loading_and_unloading_need_the_admin_scope(tmp_path: Path) -> None:
    """WRONG_SCOPE with generate; admin needs no further flag."""
    async with guarded(tmp_path) as (tokens, api):
        load, unload = model_service_pb2.LoadModelRequest, model_service_pb2.UnloadModelRequest
        for call in (api.models.LoadModel, api.models.UnloadModel):
            request = load(model="scripted") if call is api.models.LoadModel else unload(model="scripted")
            refusal = await refused(call(request, metadata=with_token(tokens.generate)))
            assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "WRONG_SCOPE")
            await call(request, metadata=with_token(tokens.admin))


@in_loop
async def test_allow_model_management_lets_every_token_load(tmp_path: Path) -> None:
    """The flag is the operator's word; a token is needed nevertheless."""
    async with guarded(tmp_path, allow_model_management=True) as (tokens, api):
        request = model_service_pb2.LoadModelRequest(model="scripted")
        await api.models.LoadModel(request, metadata=with_token(tokens.generate))
        assert (await refused(api.models.LoadModel(request))).reason == "NO_TOKEN"


@in_loop
async def test_without_tokens_loading_needs_the_flag() -> None:
    """An admin token that nobody gave out opens nothing."""
    async with serving(SCRIPT) as (_, api):
        request = model_service_pb2.LoadModelRequest(model="scripted")
        refusal = await refused(api.models.LoadModel(request, metadata=with_token("anything")))
        assert (refusal.reason, "--allow-model-management" in refusal.message) == ("WRONG_SCOPE", True)


@in_loop
async def test_a_revoked_token_is_refused_from_its_next_call_on(tmp_path: Path) -> None:
    """On the same connection, without a restart; others go on, and a new one is known at once."""
    async with guarded(tmp_path) as (tokens, api):
        assert await api.text("ping", metadata=with_token(tokens.generate)) == "pong"
        tokens.revoke("gwen")
        assert (await refused(api.answer("ping", metadata=with_token(tokens.generate)))).reason == "NO_TOKEN"
        assert await api.text("ping", metadata=with_token(tokens.other)) == "pong"
        assert await api.text("ping", metadata=with_token(tokens.add("nina"))) == "pong"


@in_loop
async def test_a_broken_file_keeps_the_last_good_tokens(tmp_path: Path) -> None:
    """Neither locks everybody out nor lets anybody in."""
    async with guarded(tmp_path) as (tokens, api):
        tokens.path.write_text("this is no token file")
        assert await api.text("ping", metadata=with_token(tokens.generate)) == "pong"
        assert (await refused(api.answer("ping"))).reason == "NO_TOKEN"


@in_loop
async def test_health_is_open(tmp_path: Path) -> None:
    """Probes have no token."""
    async with guarded(tmp_path) as (_, api):
        answer = await api.health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@in_loop
async def test_reflection_needs_a_token(tmp_path: Path) -> None:
    """Any token."""
    async with guarded(tmp_path) as (tokens, api):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub
        reflect = stub(api.channel).ServerReflectionInfo
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        for metadata, services in (((), 0), (with_token(tokens.generate), 6)):
            call = reflect(iter(asked), metadata=metadata)
            if services:
                answer = await call.read()
                assert len(answer.list_services_response.service) == services
            else:
                assert (await refused(read_all(call))).reason == "NO_TOKEN"


@in_loop
async def test_a_message_is_not_read_without_a_token(tmp_path: Path) -> None:
    """One that is too large would be refused for its size if it were."""
    async with guarded(tmp_path, max_request_bytes=4096) as (tokens, api):
        large = Request(prompt="x" * 8192)
        assert (await refused(api.answer(large))).code == "UNAUTHENTICATED"
        assert (await refused(api.answer(large, metadata=with_token(tokens.generate)))).code == "RESOURCE_EXHAUSTED"


@in_loop
async def test_the_unix_socket_needs_tokens_too(tmp_path: Path) -> None:
    """It is for one user alone, and tokens hold on it as anywhere."""
    path = tmp_path / "s"
    async with guarded(tmp_path, grpc_socket=path) as (tokens, _), connected(f"unix:{path}") as local:
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await refused(local.answer("ping"))).reason == "NO_TOKEN"
        assert await local.text("ping", metadata=with_token(tokens.generate)) == "pong"
