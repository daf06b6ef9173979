"""Files are read again when they change, and a change that cannot be read takes nothing down."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_grpc.auth import watch
from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.reload import COMPLAIN_SECONDS, RETRY_SECONDS, FromFiles, read_bytes
from mlx_grpc.auth.watch import Watch
from mlx_grpc.bounds.descriptors import Spare


class Number:
    """A file with a number in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "number"
        self.reads = 0
        self.obstacle: Exception | None = None
        """What stands in the way of reading, and is not in the file."""

    def read(self) -> int:
        self.reads += 1
        if self.obstacle:
            raise self.obstacle
        try:
            return int(read_bytes(self.path, "number", 100))
        except ValueError:
            raise AuthError(f"{self.path} holds no number") from None


class Clock:
    """Time that only a test lets pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def number(tmp_path: Path) -> Number:
    made = Number(tmp_path)
    made.path.write_text("1")
    return made


def old(path: Path) -> None:
    """As if it had been written long ago."""
    os.utime(path, (1e9, 1e9))


def test_a_changed_file_is_read_again(number: Number) -> None:
    """The next look sees it, of the same length and written in place as well."""
    value = FromFiles([number.path], number.read)
    for content in ("2", "3", "44", "5"):
        number.path.write_text(content)
        assert value.current() == int(content)


def test_a_moved_file_is_read_again(number: Number) -> None:
    """It may be older than the one that it replaces."""
    value = FromFiles([number.path], number.read)
    new = number.path.with_suffix(".new")
    new.write_text("7")
    old(new)
    new.replace(number.path)
    assert value.current() == 7


def test_a_change_that_cannot_be_read_keeps_the_last_value(
    number: Number, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once, however often one looks; then a good change counts."""
    monkeypatch.setattr(logging.getLogger("mlx_grpc"), "propagate", True)
    value = FromFiles([number.path], number.read)
    number.path.write_text("many")
    assert [value.current() for _ in range(5)] == [1] * 5
    assert [record.getMessage() for record in caplog.records] == [
        f"what was read before stays in force: {number.path} holds no number"
    ]
    number.path.write_text("2")
    assert value.current() == 2


def test_a_file_that_goes_away_keeps_the_last_value(number: Number) -> None:
    """Tools that write files anew may leave a moment without one."""
    value = FromFiles([number.path], number.read)
    number.path.unlink()
    assert value.current() == 1
    number.path.write_text("2")
    assert value.current() == 2


def test_a_file_that_is_not_there_at_first_is_an_error(tmp_path: Path) -> None:
    """There is no last value yet."""
    with pytest.raises(AuthError, match="No such file"):
        FromFiles([tmp_path / "number"], Number(tmp_path).read)


def test_a_file_that_changes_while_it_is_read_is_read_again(number: Number) -> None:
    """A key belongs to its certificate: both are read while neither changes."""

    def read() -> int:
        value = number.read()
        if number.reads == 1:
            number.path.write_text("22")
        return value

    assert FromFiles([number.path], read).current() == 22


def test_a_file_that_never_stands_still_is_an_error(number: Number) -> None:
    """One tries a bounded number of times."""

    def read() -> int:
        value = number.read()
        number.path.write_text("1" * (number.reads + 1))
        return value

    with pytest.raises(AuthError, match="changes all the time"):
        FromFiles([number.path], read)


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    """Nor a device without an end."""
    with pytest.raises(AuthError, match="more than 10 bytes"):
        read_bytes(Path("/dev/zero"), "number", 10)


OBSTACLES = [AuthError("Too many open files"), OSError("Too many open files"), MemoryError(), RuntimeError("a bug")]


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda one: type(one).__name__)
def test_a_reading_that_fails_is_tried_again(number: Number, obstacle: Exception) -> None:
    """Though the file does not change any more: what stood in the way, a lack of descriptors say, was not in it."""
    clock = Clock()
    value = FromFiles([number.path], number.read, now=clock)
    number.path.write_text("2")
    old(number.path)
    number.obstacle = obstacle
    assert value.current() == 1
    number.obstacle = None
    clock.seconds += RETRY_SECONDS
    assert value.current() == 2


def test_tries_are_bounded(number: Number) -> None:
    """However many calls come, a file that cannot be read is read once a second."""
    clock = Clock()
    value = FromFiles([number.path], number.read, now=clock)
    number.path.write_text("many")
    reads = number.reads
    for _ in range(100):
        assert value.current() == 1
        clock.seconds += RETRY_SECONDS / 50
    assert number.reads - reads <= 3


def test_the_first_reading_after_a_failure_is_whole(number: Number) -> None:
    """A file that is broken and then put back as it was is in order again, and is said to be."""
    value = FromFiles([number.path], number.read)
    aside = number.path.with_suffix(".aside")
    number.path.rename(aside)
    assert value.current() == 1
    aside.rename(number.path)
    reads = number.reads
    assert value.current() == 1
    assert number.reads > reads


@pytest.mark.parametrize("what", ["folder", "pipe", "dangling link", "nothing"])
def test_other_things_in_the_place_of_a_file_keep_the_last_value(number: Number, what: str) -> None:
    """None of them blocks, and the file counts again when it is back."""
    value = FromFiles([number.path], number.read)
    number.path.unlink()
    make: dict[str, Callable[[], None]] = {
        "folder": number.path.mkdir,
        "pipe": lambda: os.mkfifo(number.path),
        "dangling link": lambda: number.path.symlink_to("nowhere"),
        "nothing": lambda: None,
    }
    make[what]()
    assert value.current() == 1
    if what == "folder":
        number.path.rmdir()
    else:
        number.path.unlink(missing_ok=True)
    number.path.write_text("2")
    assert value.current() == 2


def test_a_pipe_is_refused_at_first(tmp_path: Path) -> None:
    """It could be read once and no more; nobody waits for who writes into it."""
    os.mkfifo(tmp_path / "number")
    with pytest.raises(AuthError, match="is a pipe"):
        FromFiles([tmp_path / "number"], Number(tmp_path).read)


def test_a_change_that_cannot_be_seen_counts_after_a_refresh(number: Number, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network's file system, which keeps what it knew of a file."""
    old(number.path)
    monkeypatch.setattr("mlx_grpc.auth.reload._mark", lambda path: (1, 1, 1, 1, 1))
    value = FromFiles([number.path], number.read)
    number.path.write_text("2")
    assert value.current() == 1
    value.refresh()
    assert value.current() == 2


def test_a_value_that_is_the_same_stays_the_same_object(tmp_path: Path) -> None:
    """Who was told of it sees that nothing changed."""
    path = tmp_path / "words"
    path.write_text("a b")
    value = FromFiles([path], lambda: tuple(path.read_text().split()))
    first = value.current()
    value.refresh()
    path.write_text("a  b")
    assert value.current() is first


def test_the_complaint_comes_again(
    number: Number, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it is so, every few minutes; the end of it is told, too."""
    monkeypatch.setattr(logging.getLogger("mlx_grpc"), "propagate", True)
    caplog.set_level("INFO", "mlx_grpc")
    clock = Clock()
    value = FromFiles([number.path], number.read, now=clock)
    number.path.write_text("many")
    for _ in range(100):
        value.refresh()
        clock.seconds += COMPLAIN_SECONDS / 50
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
    number.path.write_text("2")
    assert value.current() == 2
    assert caplog.records[-1].getMessage() == f"{number.path} is read again"


def test_the_watch_reads_without_a_call(number: Number, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, which ends with it."""
    monkeypatch.setattr(watch, "EVERY_SECONDS", 0.01)
    seen = threading.Event()

    def read() -> int:
        value = number.read()
        if value == 2:
            seen.set()
        return value

    before = threading.active_count()
    watching = Watch([FromFiles([number.path], read)], Spare())
    watching.start()
    try:
        number.path.write_text("2")
        assert seen.wait(30)
    finally:
        watching.close()
    assert threading.active_count() == before


def test_a_watch_that_was_never_started_can_be_closed() -> None:
    """A server that could not start is stopped like others."""
    Watch([], Spare()).close()
