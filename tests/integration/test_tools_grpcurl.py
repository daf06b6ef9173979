"""grpcurl, with nothing but the server's reflection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_grpc import testing
from tests.conformance.helper_program import helper_program
from tests.helpers.tools import json_values, run_tool, tool

SCRIPT = testing.Script(replies={"Say hello.": "Hello, world!", "hi\nassistant\n": "Hello!"})
INFERENCE = "mlx_grpc.v1.InferenceService"


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with testing.run(SCRIPT) as server:
        yield server.target


def grpcurl(*arguments: str) -> str:
    """Its output; the test fails when it does."""
    done = run_tool(tool("grpcurl"), "-plaintext", *arguments)
    assert done.returncode == 0
    return done.stdout


def test_list(target: str) -> None:
    """Every service is there, without a proto file."""
    assert set(grpcurl(target, "list").split()) >= {
        INFERENCE,
        "mlx_grpc.v1.TokenizerService",
        "mlx_grpc.v1.ModelService",
        "mlx_grpc.v1.ServerService",
        "grpc.health.v1.Health",
    }


def test_describe(target: str) -> None:
    """A method and a message say what they are."""
    assert "rpc StreamGenerate ( .mlx_grpc.v1.GenerateRequest )" in grpcurl(target, "describe", INFERENCE)
    assert "optional uint32 max_tokens = 1;" in grpcurl(target, "describe", "mlx_grpc.v1.Stop")


def test_call(target: str) -> None:
    """A whole answer."""
    answer = json.loads(grpcurl("-d", '{"prompt": "Say hello."}', target, f"{INFERENCE}/Generate"))
    assert answer["candidates"][0]["text"] == "Hello, world!"


def test_stream(target: str) -> None:
    """Events as they come."""
    chat = {"chat": {"messages": [{"role": "ROLE_USER", "content": [{"text": "hi"}]}]}}
    events = json_values(grpcurl("-d", json.dumps(chat), target, f"{INFERENCE}/StreamGenerate"))
    assert [next(iter(event)) for event in (events[0], *events[-2:])] == ["started", "finished", "completed"]
    assert "".join(event["delta"]["text"] for event in events if "delta" in event) == "Hello!"


def test_a_refusal_shows_its_details(target: str) -> None:
    """The reason and the field are readable, since reflection serves the details' types, too."""
    done = run_tool(
        tool("grpcurl"),
        "-plaintext",
        "-d",
        '{"prompt": "hi", "sampling": {"topP": 2}}',
        target,
        f"{INFERENCE}/Generate",
    )
    assert done.returncode != 0
    for words in ("InvalidArgument", "INVALID_FIELD", "sampling.top_p"):
        assert words in done.stderr


def test_a_token_over_tls(tmp_path: Path) -> None:
    """The token goes in a header; without it, or with another, the call is refused."""
    with helper_program() as helper:
        facts = helper.post("server", {"tls": True, "tokens": {"good-token": ["generate"]}})
        root = tmp_path / "root.pem"
        root.write_text(facts["root_certificates"])
        call = ("-d", '{"prompt": "hi", "stop": {"maxTokens": 1}}', facts["grpc"], f"{INFERENCE}/Generate")
        command = (tool("grpcurl"), "-cacert", str(root), "-H")
        assert run_tool(*command, "authorization: Bearer good-token", *call).returncode == 0
        refused = run_tool(*command, "authorization: Bearer other-token", *call)
        assert refused.returncode != 0
        assert "Unauthenticated" in refused.stderr
