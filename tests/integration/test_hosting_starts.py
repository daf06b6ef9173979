"""A model's first load, and the engine that is lost in it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from mlx_grpc.config import Config
from mlx_grpc.engine.link.interface import OnLost, OnMessage
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.engine.messages import FromWorker, Load, LoadFailed, ToWorker
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.server import Server
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.service.hosting.recovery import MAX_IDLE_CRASHES
from tests.helpers.llama import make_llama
from tests.helpers.rpc import Request, Stop, connected, in_loop, refused, until


class Links:
    """Starts engine processes and kills the first few of them while they load."""

    def __init__(self, kills: int) -> None:
        self.kills = kills
        self.started = 0

    def start_link(self, on_message: OnMessage, on_lost: OnLost) -> ProcessLink:
        self.started += 1
        return _KilledLink(on_message, on_lost) if self.started <= self.kills else ProcessLink(on_message, on_lost)


class _KilledLink(ProcessLink):
    def send(self, message: ToWorker) -> None:
        super().send(message)
        if isinstance(message, Load):
            assert self.pid is not None
            os.kill(self.pid, signal.SIGKILL)


@asynccontextmanager
async def starting(links: Links, script: Script | None = None, model: str = "") -> AsyncIterator[Server]:
    """A server that listens, and whose model still loads."""
    model = model or f"scripted=script:{msgspec.json.encode(script or Script()).decode()}"
    config = Config(model=(model,), grpc_port=0, http_port=0, admin_port=0, trust_remote_code=True)
    server = Server(config, links.start_link)
    try:
        await server.start()
        yield server
    finally:
        await server.stop(0)


@in_loop
async def test_an_engine_killed_in_the_first_load_is_started_again() -> None:
    """Twice: the model is LOADING all the time, and then READY, as if it had taken longer."""
    links = Links(kills=2)
    async with starting(links) as server, connected(server.address) as api:
        states = {server.catalog.get("").life.state}
        await server.ready()
        text = await api.text(Request(prompt="hi", stop=Stop(max_tokens=2)))
    assert states == {ModelState.LOADING}
    assert (links.started, bool(text)) == (3, True)


@in_loop
async def test_an_engine_killed_in_every_load_fails_the_model() -> None:
    """As often as recovery allows, and one line says how the last one ended."""
    links = Links(kills=100)
    async with starting(links) as server:
        with pytest.raises(ModelSourceError, match="SIGKILL") as failure:
            await server.ready()
        assert server.catalog.get("").life.state is ModelState.FAILED
    assert links.started == MAX_IDLE_CRASHES + 1
    assert "\n" not in str(failure.value)


@in_loop
async def test_a_model_that_was_given_up_can_be_loaded_anew() -> None:
    """The crashes before an operator's new attempt do not count in it."""
    links = Links(kills=MAX_IDLE_CRASHES + 2)
    async with starting(links) as server:
        host = server.catalog.get("")
        await host.life.settled()
        server.catalog.load(host.source.id)
        await host.life.settled()
        assert host.life.state is ModelState.READY


@in_loop
async def test_a_model_that_cannot_be_loaded_is_not_tried_again() -> None:
    """What the engine itself says of the model is true the next time as well."""
    links = Links(kills=0)
    async with starting(links, Script(load_error="the weights are torn")) as server:
        with pytest.raises(ModelSourceError, match="torn"):
            await server.ready()
    assert links.started == 1


@in_loop
async def test_a_bug_of_ours_while_loading_fails_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is FAILED with one line and the traceback is in the log; it does not load for ever."""

    def broken(path: str) -> None:
        raise KeyError(path)

    monkeypatch.setattr("mlx_grpc.service.hosting.starter.read_files", broken)
    async with starting(Links(kills=0)) as server:
        with pytest.raises(ModelSourceError, match="bug of this server: KeyError"):
            await server.ready()
        assert server.catalog.get("").engine_pid is None


@in_loop
async def test_a_package_that_calls_exit_when_it_is_imported_is_named(tmp_path: Path) -> None:
    """Which file did it and what it said, and not "exit code 1"; nothing is tried again."""
    folder = make_llama(tmp_path / "llama", model_file="licensed.py")
    (folder / "licensed.py").write_text("import sys\nsys.exit('no licence\\nwas found')\n")
    links = Links(kills=0)
    async with starting(links, model=f"llama={folder}") as server:
        with pytest.raises(ModelSourceError) as failure:
            await server.ready()
    text = str(failure.value)
    assert "licensed.py, line 2, called exit: no licence was found" in text
    assert links.started == 1


@in_loop
async def test_a_tokenizer_that_calls_exit_does_not_end_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer is read in a thread of the server itself."""

    def leaving(path: str) -> None:
        raise SystemExit(3)

    monkeypatch.setattr("mlx_grpc.service.hosting.files.load_tokenizer", leaving)
    async with starting(Links(kills=0)) as server:
        with pytest.raises(ModelSourceError, match="called exit: code 3"):
            await server.ready()


class _MumblingLink(ProcessLink):
    """After its first load, an engine of this link cannot load the model any more, for a while."""

    started = 0

    def __init__(self, on_message: OnMessage, on_lost: OnLost) -> None:
        type(self).started += 1
        number = type(self).started

        def deliver(message: FromWorker) -> None:
            on_message(LoadFailed("no memory just now") if 1 < number < 4 else message)

        super().__init__(deliver, on_lost)


@in_loop
async def test_a_restart_that_cannot_load_the_model_is_tried_again() -> None:
    """The model was loaded before, so it is not the model."""
    config = Config(model=("scripted=script:{}",), grpc_port=0, http_port=0, admin_port=0)
    server = Server(config, _MumblingLink)
    try:
        await server.start()
        await server.ready()
        host = server.catalog.get("")
        assert host.engine_pid is not None
        os.kill(host.engine_pid, signal.SIGKILL)
        async with connected(server.address) as api:
            await until(api, lambda: _MumblingLink.started == 4)
            await server.ready()
            assert await api.text(Request(prompt="hi", stop=Stop(max_tokens=2)))
    finally:
        await server.stop(0)


@in_loop
async def test_a_model_without_room_for_one_short_request_is_failed() -> None:
    """Not READY, and no engine is left; one line says what it would need."""
    links = Links(kills=0)
    script = Script(memory_bytes=1 << 20, weights_bytes=1 << 19, kv_bytes_per_token=1 << 14)
    async with starting(links, script) as server, connected(server.address) as api:
        with pytest.raises(ModelSourceError, match="one short request needs 524288"):
            await server.ready()
        refusal = await refused(api.answer("hi"))
        assert server.catalog.get("").engine_pid is None
    assert (refusal.reason, links.started) == ("MODEL_FAILED", 1)
