"""Generated and mutated requests through the real batch engine: only errors of the table, and no engine ever lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from mlx_grpc import errors, testing
from mlx_grpc.v1 import generation_pb2, tokenizer_service_pb2
from tests.helpers.llama import make_llama
from tests.helpers.proofs.requests import RequestMaker
from tests.helpers.proofs.servers import empty, proof, tell
from tests.helpers.rpc import connected, read_refusal

pytestmark = pytest.mark.prove

FULL_SIZE, SMALL_SIZE = 50_000, 500
AT_ONCE = 32
MUTATED_SHARE = 0.3
CALL_SECONDS = 60.0
INFERENCE, TOKENIZER = "/mlx_grpc.v1.InferenceService/", "/mlx_grpc.v1.TokenizerService/"
METHODS: list[tuple[str, Any]] = [
    (INFERENCE + "StreamGenerate", generation_pb2.GenerateRequest),
    (INFERENCE + "Generate", generation_pb2.GenerateRequest),
    (TOKENIZER + "Tokenize", tokenizer_service_pb2.TokenizeRequest),
    (TOKENIZER + "Detokenize", tokenizer_service_pb2.DetokenizeRequest),
    (TOKENIZER + "CountTokens", tokenizer_service_pb2.CountTokensRequest),
    (TOKENIZER + "RenderChat", tokenizer_service_pb2.RenderChatRequest),
]
WEIGHTS = (6, 6, 1, 1, 1, 1)
ALLOWED = {
    ("INVALID_ARGUMENT", errors.InvalidField.reason),
    ("INVALID_ARGUMENT", errors.PromptTooLong.reason),
    ("INVALID_ARGUMENT", errors.NeverFits.reason),
    ("UNIMPLEMENTED", errors.UnsupportedField.reason),
    ("NOT_FOUND", errors.ModelNotFound.reason),
    ("DEADLINE_EXCEEDED", errors.DeadlineUnreachable.reason),
    ("DEADLINE_EXCEEDED", errors.DeadlinePassed.reason),
    ("RESOURCE_EXHAUSTED", ""),
}
"""What DESIGN's table has for a bad request, and grpc's own for a message over the limit."""


@proof
async def test_no_request_breaks_the_server(full_size: bool, tmp_path: Path) -> None:
    """Every call ends in an answer or in an error of the table that names its field; engine and server live on."""
    total = FULL_SIZE if full_size else SMALL_SIZE
    llama = make_llama(tmp_path / "llama")
    async with (
        testing.serve(engine="process", model=(f"llama={llama}",), max_queue=AT_ONCE) as server,
        connected(server.target) as api,
    ):
        engine_pid = server.engine_pid
        requests, outcomes = _requests(total), Counter[tuple[str, str]]()
        await asyncio.gather(*(_call_all(api.channel, requests, outcomes) for _ in range(AT_ONCE)))
        await empty(server, api)
        assert outcomes.total() == total
        wrong = {name: count for name, count in outcomes.items() if name not in ALLOWED | {("OK", "")}}
        assert not wrong
        assert outcomes["OK", ""] > total / 10
        assert server.engine_pid == engine_pid
        assert server.server.stats.crashes.total() == 0
        assert await api.text("still there?") is not None
        tell(f"{total} requests: {dict(outcomes)}; engine {engine_pid} throughout")


def _requests(total: int) -> Iterator[tuple[str, bytes]]:
    """Methods and the bytes to send; the same each time."""
    maker = RequestMaker(seed=7)
    for _ in range(total):
        method, kind = maker.choose(METHODS, WEIGHTS)
        message = maker.message(kind)
        if kind is generation_pb2.GenerateRequest:
            maker.tame(message)
        data = message.SerializeToString()
        yield method, maker.mutated(data) if maker.happens(MUTATED_SHARE) else data


async def _call_all(
    channel: grpc.aio.Channel, requests: Iterator[tuple[str, bytes]], outcomes: Counter[tuple[str, str]]
) -> None:
    """Send the next request when the one before has ended."""
    for method, data in requests:
        outcome = await _call(channel, method, data)
        outcomes[outcome] += 1
        if outcome not in ALLOWED | {("OK", "")}:
            tell(f"{outcome} for {method} {data!r}")


async def _call(channel: grpc.aio.Channel, method: str, data: bytes) -> tuple[str, str]:
    streams = method.endswith("StreamGenerate")
    call: Any = channel.unary_stream(method) if streams else channel.unary_unary(method)
    try:
        if streams:
            async for _ in call(data, timeout=CALL_SECONDS):
                pass
        else:
            await call(data, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        refusal = read_refusal(error)
        assert refusal.code != "INVALID_ARGUMENT" or refusal.field, f"no field named: {refusal}"
        return refusal.code, refusal.reason
    return "OK", ""
