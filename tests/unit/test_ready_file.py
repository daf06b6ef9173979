"""The ready file is this server's own: nobody's link is followed, and nobody else's file is removed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from mlx_grpc import ready_file
from mlx_grpc.ready_file import ReadyFileError


def test_it_is_whole_and_for_its_owner(tmp_path: Path) -> None:
    """0600 whatever the umask, and nothing beside it."""
    path = tmp_path / "ready.json"
    before = os.umask(0)
    try:
        ready_file.write(path, {"grpc": "a:1"})
    finally:
        os.umask(before)
    assert json.loads(path.read_text()) == {"grpc": "a:1"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("target", ["theirs", "nowhere"])
def test_a_link_is_not_followed(tmp_path: Path, target: str) -> None:
    """At the start and when it is written: what it leads to stays as it was, and so does the link."""
    (tmp_path / "theirs").write_text("theirs")
    link = tmp_path / "ready.json"
    link.symlink_to(tmp_path / target)
    for use in (ready_file.check, lambda path: ready_file.write(path, {})):
        with pytest.raises(ReadyFileError, match="is a link"):
            use(link)
    assert link.is_symlink()
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "nowhere").exists()


def test_a_pipe_is_not_written_to(tmp_path: Path) -> None:
    """Only a file is replaced."""
    os.mkfifo(tmp_path / "ready.json")
    with pytest.raises(ReadyFileError, match="not a file"):
        ready_file.check(tmp_path / "ready.json")


def test_an_old_one_is_replaced(tmp_path: Path) -> None:
    """That of a server that was killed."""
    path = tmp_path / "ready.json"
    ready_file.write(path, {"pid": 1})
    written = ready_file.write(path, {"pid": 2})
    assert json.loads(path.read_text()) == {"pid": 2}
    written.remove()
    assert not path.exists()


def test_another_servers_is_left(tmp_path: Path) -> None:
    """The server that ends removes what it has written, and nothing else."""
    path = tmp_path / "ready.json"
    first = ready_file.write(path, {"pid": 1})
    ready_file.write(path, {"pid": 2})
    first.remove()
    assert json.loads(path.read_text()) == {"pid": 2}
