"""The server for users' own tests."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mlx_grpc import testing
from mlx_grpc.client import AsyncClient, Client
from mlx_grpc.models.sources import ModelSourceError

PING = testing.Script(replies={"ping": "pong"})


def test_in_a_thread() -> None:
    """As the module's docstring shows; no thread of ours is left afterwards."""
    before = set(threading.enumerate())
    with testing.run(PING) as server, Client(server.target) as client:
        assert client.generate("ping").text == "pong"
        assert server.engine_pid is None
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("mlx", "engine"))]


def test_in_the_tests_own_loop() -> None:
    """As the module's docstring shows."""

    async def main() -> str:
        async with testing.serve(PING) as server, AsyncClient(server.target) as client:
            return (await client.generate("ping")).text

    assert asyncio.run(main()) == "pong"


def test_with_an_engine_process() -> None:
    """The engine has a process of its own."""
    with testing.run(PING, engine="process") as server, Client(server.target) as client:
        assert client.generate("ping").text == "pong"
        assert server.engine_pid is not None


def test_two_at_once() -> None:
    """Each on its own port."""
    with testing.run(PING) as one, testing.run(testing.Script(replies={"ping": "other"})) as two:
        assert one.target != two.target
        with Client(one.target) as first, Client(two.target) as second:
            assert [client.generate("ping").text for client in (first, second)] == ["pong", "other"]


def test_a_script_that_cannot_load_raises_where_it_is_used() -> None:
    """In the test, not in a thread that nobody looks at."""
    with pytest.raises(ModelSourceError, match="torn"), testing.run(testing.Script(load_error="torn")):
        pass


def test_a_setting_that_cannot_be_raises_too() -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match="max_batch"), testing.run(PING, max_batch=0):
        pass
