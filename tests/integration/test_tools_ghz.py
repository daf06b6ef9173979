"""ghz, a load generator: many calls at once, and none of them fails."""

from __future__ import annotations

import json

import pytest

from mlx_grpc import testing
from tests.helpers.tools import run_tool, tool


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
def test_load(method: str) -> None:
    """200 calls over 8 connections, 32 at a time."""
    with testing.run(testing.Script(replies={"Say hello.": "Hello, world!"})) as server:
        done = run_tool(
            tool("ghz"), "--insecure", "--call", f"mlx_grpc.v1.InferenceService/{method}",
            *("--proto", "mlx_grpc/v1/inference_service.proto", "--import-paths", "protos"),
            *("--data", '{"prompt": "Say hello.", "stop": {"max_tokens": 16}}'),
            *("--total", "200", "--concurrency", "32", "--connections", "8", "--format", "json"), server.target,
        )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["count"] == 200
    assert report["statusCodeDistribution"] == {"OK": 200}
