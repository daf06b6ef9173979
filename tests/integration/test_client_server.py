"""Both clients and the command line against the whole server, with a scripted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from mlx_grpc import errors, testing
from mlx_grpc.cli.app import main
from mlx_grpc.client import AsyncClient, Client, HealthStatus, ModelState
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.request import Completed, Started

REPLIES = {"ping": "pong and more"}


@pytest.fixture(scope="module")
def server() -> Iterator[testing.LocalServer]:
    with testing.run(Script(replies=REPLIES)) as server:
        yield server


@pytest.fixture
def client(server: testing.LocalServer) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def test_the_stream_and_the_answer_say_the_same(client: Client) -> None:
    """Text, seed, and counts; the request's own id comes back."""
    whole = client.generate("ping", request_id="mine", seed=5, output_token_ids=True)
    streamed = client.stream("ping", request_id="mine", seed=5, output_token_ids=True).result()
    assert whole.text == REPLIES["ping"]
    facts = [(one.text, one.token_ids, one.seed, one.request_id, one.usage) for one in (whole, streamed)]
    assert facts[0] == facts[1]
    assert whole.generation_id != streamed.generation_id


def test_events_come_in_order(client: Client) -> None:
    """Started before all text, Completed last."""
    events = list(client.stream("ping"))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Completed)


def test_a_bad_field_comes_back_by_name(client: Client) -> None:
    """The server's own check."""
    with pytest.raises(errors.InvalidField) as caught:
        client.generate("ping", top_p=-1.0)
    assert caught.value.field == "sampling.top_p"


def test_an_unknown_model(client: Client) -> None:
    """Names what was not found."""
    with pytest.raises(errors.ModelNotFound) as caught:
        client.get_model("nobody")
    assert caught.value.resource == "nobody"


def test_what_the_server_has(client: Client) -> None:
    """Its models, its default one, its health, its limits."""
    (model,) = client.list_models()
    assert (model.state, model.default) == (ModelState.READY, True)
    assert client.get_model() == model
    services = ("", "mlx_grpc.v1.InferenceService", f"models/{model.id}")
    assert {client.health(name) for name in services} == {HealthStatus.SERVING}
    assert client.health("models/nobody") is HealthStatus.SERVICE_UNKNOWN
    assert client.server_info().default_model == model.id


def test_tokens_go_there_and_back(client: Client) -> None:
    """Tokenize and detokenize are each other's opposite."""
    tokens = client.tokenize("ping", add_special_tokens=False)
    assert client.detokenize(tokens.token_ids) == "ping"
    assert b"".join(tokens.pieces) == b"ping"
    assert client.count_tokens("ping").count >= len(tokens.token_ids)


def test_asyncio_in_the_servers_own_loop() -> None:
    """Server and client share a test's event loop."""

    async def body() -> str:
        async with testing.serve(Script(replies=REPLIES)) as server, AsyncClient(server.target) as client:
            return "".join([text async for text in client.stream("ping").text()])

    assert asyncio.run(body()) == REPLIES["ping"]


def test_the_command_line(server: testing.LocalServer, capsys: pytest.CaptureFixture[str]) -> None:
    """generate and status of the real server."""
    assert main(["generate", "ping", "--target", server.target]) == 0
    assert capsys.readouterr().out == REPLIES["ping"] + "\n"
    assert main(["status", "--json", "--target", server.target]) == 0
    assert json.loads(capsys.readouterr().out)["health"][""] == "serving"
