"""Folders for what must come from nobody else: libraries that are loaded, verdicts that are believed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_grpc.engine.accel.cpu.compiled import compiled
from mlx_grpc.models.private_folder import NotPrivate, PrivateFolder

SOMEBODY = 12_345
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
needs_compiler = pytest.mark.skipif(sys.platform != "linux", reason="C is compiled on Linux alone")
HONEST, EVIL = "int answer(void) { return 1; }\n", "int answer(void) { return 666; }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[PrivateFolder]:
    with contextlib.closing(PrivateFolder(tmp_path / "a" / "mine")) as opened:
        yield opened


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_files_are_for_their_owner(folder: PrivateFolder) -> None:
    """0700 and 0600, whatever the umask, and no partial file is left."""
    before = os.umask(0)
    try:
        folder.write("x", b"content")
    finally:
        os.umask(before)
    assert (mode(folder.path), mode(folder.path / "x")) == (0o700, 0o600)
    assert folder.names() == ["x"]
    assert folder.read("x", 100) == b"content"


def test_a_folder_of_an_earlier_version_is_closed_to_others(tmp_path: Path) -> None:
    """Its mode was left to the umask."""
    (tmp_path / "mine").mkdir(0o777)
    (tmp_path / "mine").chmod(0o777)
    PrivateFolder(tmp_path / "mine").close()
    assert mode(tmp_path / "mine") == 0o700


def test_a_link_is_no_folder(tmp_path: Path) -> None:
    """Wherever it leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine").symlink_to("elsewhere")
    with pytest.raises(OSError, match="mine"):
        PrivateFolder(tmp_path / "mine")


@is_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Who planted it may change it at any time."""
    (tmp_path / "mine").mkdir(0o700)
    os.chown(tmp_path / "mine", SOMEBODY, SOMEBODY)
    with pytest.raises(NotPrivate, match="another user"):
        PrivateFolder(tmp_path / "mine")


@pytest.mark.parametrize("what", ["link", "hard link", "writable", "pipe", "long"])
def test_a_file_that_others_may_have_made_is_not_read(folder: PrivateFolder, tmp_path: Path, what: str) -> None:
    """It is refused without being waited for."""
    planted, other = folder.path / "x", tmp_path / "other"
    other.write_bytes(b"evil")
    if what == "link":
        planted.symlink_to(other)
    elif what == "hard link":
        planted.hardlink_to(other)
    elif what == "pipe":
        os.mkfifo(planted)
    else:
        planted.write_bytes(b"evil" if what == "writable" else b"evil" * 100)
        planted.chmod(0o666 if what == "writable" else 0o600)
    with pytest.raises(OSError, match="x"):
        folder.read("x", 100)


def test_writing_replaces_a_link_and_does_not_follow_it(folder: PrivateFolder, tmp_path: Path) -> None:
    """What it led to stays as it was."""
    (tmp_path / "other").write_bytes(b"theirs")
    (folder.path / "x").symlink_to(tmp_path / "other")
    folder.write("x", b"mine")
    assert (tmp_path / "other").read_bytes() == b"theirs"
    assert folder.read("x", 100) == b"mine"


def library_of(text: str, at: Path) -> None:
    at.with_suffix(".c").write_text(text)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(at), str(at.with_suffix(".c"))], check=True, timeout=60)


def answer(source: Path, cache: Path) -> int:
    """What the library says, asked in a process of its own: a library is never loaded twice under one name."""
    code = (
        "import ctypes, sys; from pathlib import Path; from mlx_grpc.engine.accel.cpu.compiled import compiled; "
        "paths = map(Path, sys.argv[1:]); library = compiled(*paths); "
        "print(ctypes.CDLL(str(library.__enter__())).answer()); library.__exit__(None, None, None)"
    )
    command = [sys.executable, "-c", code, str(source), str(cache)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@needs_compiler
@pytest.mark.parametrize("planted", ["link", "writable", pytest.param("owner", marks=is_root)])
def test_a_planted_library_is_not_loaded(tmp_path: Path, planted: str) -> None:
    """Under the very name that is looked for: it is made anew, and the next process finds that."""
    source, cache = tmp_path / "answer.c", tmp_path / "cache"
    source.write_text(HONEST)
    assert answer(source, cache) == 1
    (library,) = (cache / "blas").glob("*.so")
    library_of(EVIL, tmp_path / "evil.so")
    library.unlink()
    if planted == "link":
        library.symlink_to(tmp_path / "evil.so")
    else:
        library.write_bytes((tmp_path / "evil.so").read_bytes())
        library.chmod(0o666 if planted == "writable" else 0o600)
    if planted == "owner":
        os.chown(library, SOMEBODY, SOMEBODY)
    assert answer(source, cache) == 1
    assert not library.is_symlink()
    assert mode(library) == 0o600
    assert ctypes.CDLL(str(library)).answer() == 1


@needs_compiler
@pytest.mark.parametrize("planted", ["link", pytest.param("owner", marks=is_root)])
def test_a_planted_folder_is_not_used(tmp_path: Path, planted: str) -> None:
    """The library is made for the process alone, and nothing is written into the folder."""
    source, cache, elsewhere = tmp_path / "answer.c", tmp_path / "cache", tmp_path / "elsewhere"
    source.write_text(HONEST)
    cache.mkdir()
    elsewhere.mkdir()
    if planted == "link":
        (cache / "blas").symlink_to(elsewhere)
    else:
        (cache / "blas").mkdir()
        os.chown(cache / "blas", SOMEBODY, SOMEBODY)
    assert answer(source, cache) == 1
    assert not list(elsewhere.iterdir())
    assert not list((cache / "blas").iterdir())


@needs_compiler
def test_the_path_leads_through_the_folder_that_was_checked(tmp_path: Path) -> None:
    """Another folder that is put in its place meanwhile is not loaded from."""
    source, cache = tmp_path / "answer.c", tmp_path / "cache"
    source.write_text(HONEST)
    with compiled(source, cache) as library:
        (cache / "blas").rename(cache / "old")
        (cache / "blas").mkdir()
        library_of(EVIL, cache / "blas" / library.name)
        assert ctypes.CDLL(str(library)).answer() == 1
