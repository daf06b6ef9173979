"""A Unix socket for gRPC: one server has it at a time, and nobody's place is taken."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from mlx_grpc import testing
from mlx_grpc.listening import AddressInUse, ListenError
from mlx_grpc.rpc.unix_socket import take
from mlx_grpc.v1 import model_service_pb2, model_service_pb2_grpc

TAKE = """
import socket, sys
from pathlib import Path
from mlx_grpc.listening import ListenError
from mlx_grpc.rpc.unix_socket import take
listening = socket.socket(socket.AF_UNIX)
def bind(path):
    listening.bind(str(path))
    listening.listen()
sys.stdin.readline()
try:
    taken = take(Path(sys.argv[1]), "--grpc-socket", bind)
except ListenError as error:
    print("refused", error, flush=True)
else:
    print("taken", flush=True)
    sys.stdin.readline()
    taken.remove()
"""


@pytest.fixture
def path() -> Iterator[Path]:
    """Short enough for a socket, wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder) / "grpc.sock"


def answers(path: Path) -> bool:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        return bool(models.ListModels(model_service_pb2.ListModelsRequest(), timeout=10).models)


def test_a_server_that_answers_keeps_its_socket(path: Path) -> None:
    """The second server is refused, and the first goes on answering there, also after the second has ended."""
    with testing.run(grpc_socket=path):
        with pytest.raises(AddressInUse, match="another server listens"), testing.run(grpc_socket=path):
            pass
        assert answers(path)
    assert not list(path.parent.iterdir())


def test_a_socket_that_nobody_answers_at_is_replaced(path: Path) -> None:
    """That of a server that was killed."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with testing.run(grpc_socket=path):
        assert answers(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not os.path.lexists(path)


@pytest.mark.parametrize("what", ["link to a socket", "link to nothing", "file"])
def test_what_is_no_socket_is_left(path: Path, what: str) -> None:
    """A link too, wherever it leads."""
    target = path.with_name("target")
    if what == "file":
        path.write_text("mine")
    else:
        path.symlink_to(target)
    with socket.socket(socket.AF_UNIX) as killed:
        if what == "link to a socket":
            killed.bind(str(target))
    with pytest.raises(ListenError, match=r"is a link|not a socket"), testing.run(grpc_socket=path):
        pass
    assert os.path.lexists(path)
    assert os.path.lexists(target) == (what == "link to a socket")


def test_a_server_that_ends_leaves_the_socket_of_another(path: Path) -> None:
    """Somebody removed the first one's, and a second server took the place. grpc itself unlinks the path that it was
    told when it ends."""
    with ExitStack() as second:
        with testing.run(grpc_socket=path):
            path.unlink()
            second.enter_context(testing.run(grpc_socket=path))
        assert answers(path)


def test_of_servers_that_start_together_one_gets_the_place(path: Path) -> None:
    """The others are refused; nothing is stolen between the look and the taking. An old socket lies there."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    command = [sys.executable, "-c", TAKE, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racing = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    try:
        for one in racing:
            one.stdin.write("\n")
            one.stdin.flush()
        said = [one.stdout.readline().split()[0] for one in racing]
        assert sorted(said) == ["refused", "refused", "refused", "taken"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    finally:
        for one in racing:
            one.communicate("\n", timeout=20)
    assert not os.path.lexists(path)


def test_a_busy_server_is_not_taken_for_a_dead_one(path: Path) -> None:
    """Its queue of connections is full, and it answers nobody just now."""
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(AddressInUse):
            take(path, "--grpc-socket", lambda _: pytest.fail("bound"))
        for client in waiting:
            client.close()


def test_it_is_for_its_owner_from_its_first_moment(path: Path) -> None:
    """No moment in which others could connect: the mode is right before it listens."""
    modes: list[int] = []
    listening = socket.socket(socket.AF_UNIX)

    def bind(at: Path) -> None:
        listening.bind(str(at))
        modes.append(stat.S_IMODE(at.stat().st_mode))
        listening.listen()

    before = os.umask(0)
    try:
        take(path, "--grpc-socket", bind).remove()
    finally:
        os.umask(before)
        listening.close()
    assert modes == [0o600]
