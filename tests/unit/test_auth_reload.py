"""Files are read again when they change, and a change that cannot be read takes nothing down."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.reload import FromFiles, read_bytes


class Number:
    """A file with a number in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "number"
        self.reads = 0

    def read(self) -> int:
        self.reads += 1
        try:
            return int(read_bytes(self.path, "number", 100))
        except ValueError:
            raise AuthError(f"{self.path} holds no number") from None


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
