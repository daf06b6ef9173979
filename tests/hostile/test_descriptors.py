"""Connections that say nothing, more of them than there are descriptors: others go on, and the log stays small."""

from __future__ import annotations

import functools
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlx_grpc.client import Client
from tests.helpers.auth import http_call
from tests.helpers.serve import engines_of, started
from tests.hostile.helpers.life import LOG_BYTES_A_MINUTE, Attacked, Bystander, attacked, eventually, is_open, silent

pytestmark = pytest.mark.prove
OWN_FILES = 4096
PORTS = ["grpc", "http", "admin"]


@pytest.fixture(scope="module")
def open_files(full_size: bool) -> int:
    """What the attacked server may have: the usual 1,024, or few in small."""
    return 1024 if full_size else 256


@pytest.fixture(scope="module")
def many(full_size: bool) -> int:
    """Connections to one port: more than the server may have files."""
    return 1100 if full_size else 300


@pytest.fixture(autouse=True, scope="module")
def enough_files() -> Iterator[None]:
    """For this side of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OWN_FILES:
        pytest.skip(f"this process may have {hard} open files; the attack needs {OWN_FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (OWN_FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(tmp_path: Path, open_files: int) -> Iterator[Attacked]:
    with attacked(tmp_path, open_files=open_files) as server:
        yield server


def healthy(server: Attacked, port: str) -> bool:
    """Whether a new connection to that port is served."""
    try:
        if port == "grpc":
            with Client(server.addresses[port], retry=False, options={"grpc.use_local_subchannel_pool": 1}) as client:
                return bool(client.generate("hi", max_tokens=1, timeout_seconds=10).text)
        path = "/healthz" if port == "admin" else "/v1/models"
        return http_call(f"http://{server.addresses[port]}", path).status == 200
    except Exception:
        return False


def some_closed(connections: Sequence[socket.socket]) -> bool:
    """Whether the server has turned one away."""
    return not all(map(is_open, connections))


@pytest.mark.parametrize("port", PORTS)
def test_one_port_full_of_silence_leaves_the_others(server: Attacked, port: str, many: int) -> None:
    """New connections to the other ports are served; the full one serves again when the silent ones have gone."""
    before = server.descriptors()
    with Bystander(server.addresses["grpc"]) as bystander:
        with silent(server.addresses[port], many) as connections:
            assert eventually(functools.partial(some_closed, connections))
            assert any(map(is_open, connections))
            assert [other for other in PORTS if other != port and not healthy(server, other)] == []
        assert eventually(lambda: healthy(server, port))
    assert (bystander.errors, bystander.longest_gap_seconds < 2, bystander.longest_check_seconds < 2) == (
        [],
        True,
        True,
    )
    assert server.log_bytes() < LOG_BYTES_A_MINUTE
    assert eventually(lambda: server.descriptors() <= before + 2), (before, server.descriptors())


def test_all_ports_full_of_silence(server: Attacked, many: int, open_files: int, full_size: bool) -> None:
    """Who is connected notices nothing, and a descriptor is still free for what the server itself has to do."""
    before, threads = server.descriptors(), server.threads()
    with Bystander(server.addresses["grpc"]) as bystander, ExitStack() as attack:
        for port in PORTS:
            connections = attack.enter_context(silent(server.addresses[port], many))
            assert eventually(functools.partial(some_closed, connections))
        assert server.descriptors() < open_files - 32
        (engine,) = engines_of(server.pid)
        os.kill(engine, 9)
        assert eventually(lambda: [pid for pid in engines_of(server.pid) if pid != engine])
        resumed = bystander.tokens + 5
        assert eventually(lambda: bystander.tokens > resumed)
    assert bystander.errors == []
    assert bystander.longest_check_seconds < (0.3 if full_size else 2)
    assert server.log_bytes() < LOG_BYTES_A_MINUTE
    assert not [line for line in server.log if "out of system resource" in line or "Too many open files" in line]
    assert eventually(lambda: all(healthy(server, port) for port in PORTS))
    assert eventually(lambda: server.descriptors() <= before + 2), (before, server.descriptors())
    assert eventually(lambda: server.threads() <= threads + 2), (threads, server.threads())


def test_a_reset_storm_leaves_nothing(server: Attacked, many: int) -> None:
    """Connections that come and go: every seat is given back."""
    before = server.descriptors()
    for _ in range(5):
        for port in PORTS:
            with silent(server.addresses[port], many // 5):
                pass
    assert eventually(lambda: all(healthy(server, port) for port in PORTS))
    assert eventually(lambda: server.descriptors() <= before + 2), (before, server.descriptors())
    assert server.log_bytes() < LOG_BYTES_A_MINUTE


def test_the_start_says_that_few_connections_fit(tmp_path: Path) -> None:
    """In one line, which names what to do about it."""
    with attacked(tmp_path, open_files=256) as server:
        assert eventually(lambda: [line for line in server.log if "WARNING" in line])
        (line,) = [line for line in server.log if "WARNING" in line]
        assert "at most 256 files may be open (`ulimit -n`)" in line


def test_a_limit_that_is_too_low_ends_the_start() -> None:
    """Exit code 2 and one line."""
    with started("--model", "script:{}", open_files=100) as serve:
        assert serve.ended() == 2
        (line,) = serve.errors
        assert "may have 100 open files and needs at least" in line


def test_the_engine_gets_no_descriptor_of_the_server(server: Attacked) -> None:
    """No listening socket and no client's connection: what it inherits are its pipes and /dev/null."""
    with silent(server.addresses["http"], 3), Bystander(server.addresses["grpc"]):
        (engine,) = engines_of(server.pid)
        os.kill(engine, 9)  # the next one starts while connections are open
        assert eventually(lambda: [pid for pid in engines_of(server.pid) if pid != engine])
        (engine,) = [pid for pid in engines_of(server.pid) if pid != engine]
        folder = Path(f"/proc/{engine}/fd")
        assert eventually(lambda: len(list(folder.iterdir())) >= 5)
        assert not [link for one in folder.iterdir() if "socket" in (link := os.readlink(one))]
