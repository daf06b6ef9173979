"""Memory through the whole server: models share a device without holding each other up, and give back what they had."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.v1 import model_service_pb2
from tests.helpers.llama import make_llama
from tests.helpers.rpc import Request, Stop, in_loop, read_all, read_until, serving, stepped, until

MEBIBYTE = 1 << 20
ROW_TOKENS = 100


def scripted(name: str) -> str:
    """A model whose rows of ROW_TOKENS take a tenth of the device each, copies included."""
    script = Script(memory_bytes=1000 * MEBIBYTE, kv_bytes_per_token=MEBIBYTE // 2)
    return f"{name}=script:{msgspec.json.encode(script).decode()}"


def rows_of(name: str, max_tokens: int) -> Request:
    return Request(model=name, prompt="hi", stop=Stop(max_tokens=max_tokens))


@in_loop
async def test_a_model_waits_for_what_another_holds_and_then_runs() -> None:
    """One allocator budgets the device for all engines, and never latches: memory let go by one admits the other's."""
    async with stepped(model=(scripted("one"), scripted("two"))) as (server, api, gate):
        large = api.stream(rows_of("one", 8 * ROW_TOKENS))
        gate.step(2)
        await read_until(large, "started")
        waiting = api.stream(rows_of("two", 4 * ROW_TOKENS))
        queued = await read_until(waiting, "queued")
        assert queued[-1].queued.position == 0
        assert server.catalog.get("two").dispatcher.scheduler.ledger.running == 0
        gate.open()
        finished, second = await asyncio.gather(read_all(large), read_all(waiting))
    assert finished[-1].completed.usage.completion_tokens == 8 * ROW_TOKENS
    assert second[-1].completed.usage.completion_tokens == 4 * ROW_TOKENS


def resident_bytes(pid: int) -> int:
    """What a process holds in memory, seen from outside; 0 for one that has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
@in_loop
async def test_an_unloaded_model_has_given_its_memory_back(tmp_path: Path) -> None:
    """Seen from outside: the engine's process, which held it all, is gone before the model says UNLOADED."""
    folder = str(make_llama(tmp_path / "llama"))
    async with serving(model=(f"llama={folder}",), engine="process", allow_model_management=True) as (server, api):
        host = server.catalog.get("llama")
        await api.answer(rows_of("llama", 4))
        pid = host.engine_pid
        assert pid is not None
        assert resident_bytes(pid) > 50 * MEBIBYTE
        await api.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="llama"))
        await host.life.settled()
        assert resident_bytes(pid) == 0
        assert server.catalog.memory.weights_bytes == 0
        host.load()
        await until(api, lambda: host.life.state.value == "ready")
        assert await api.text(rows_of("llama", 4))
