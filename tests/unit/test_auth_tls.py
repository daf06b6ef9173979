"""Files that a server must not start with are told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.tls import MAX_PEM_BYTES, Tls
from tests.helpers.auth import Authority, TlsFolder


def encrypted(key: bytes) -> bytes:
    return load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> TlsFolder:
    return TlsFolder(tmp_path, authority.issue(), authority.pem)


def test_good_files_are_taken(files: TlsFolder) -> None:
    """With a client CA and without."""
    Tls(files.cert, files.key)
    Tls(files.cert, files.key, files.ca)


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAK: dict[str, tuple[Callable[[TlsFolder, Authority], object], str]] = {
    "no certificate": (lambda files, _: files.cert.unlink(), "certificate .*cert.pem: No such file"),
    "no key": (lambda files, _: files.key.unlink(), "key .*key.pem: No such file"),
    "no CA": (lambda files, _: files.ca.unlink(), "client CA .*ca.pem: No such file"),
    "a folder": (lambda files, _: into_folder(files.key), "key .*: Is a directory"),
    "empty": (lambda files, _: files.cert.write_bytes(b""), "not in PEM format"),
    "garbage": (lambda files, _: files.cert.write_bytes(b"\xff\x00"), "not in PEM format"),
    "a broken key": (lambda files, _: files.key.write_bytes(files.key.read_bytes()[:60]), "not in PEM format"),
    "swapped": (lambda files, _: files.cert.write_bytes(files.key.read_bytes()), "not in PEM format"),
    "another's key": (lambda files, authority: files.key.write_bytes(authority.issue().key), "is not that of"),
    "an encrypted key": (lambda files, _: files.key.write_bytes(encrypted(files.key.read_bytes())), "is encrypted"),
    "an empty CA": (lambda files, _: files.ca.write_bytes(b""), "client CA .* holds no PEM certificates"),
    "a CA of garbage": (lambda files, _: files.ca.write_bytes(b"\xff"), "client CA .* holds no PEM certificates"),
    "no end": (lambda files, _: files.cert.write_bytes(b" " * (MAX_PEM_BYTES + 1)), "more than"),
}


@pytest.mark.parametrize("name", BREAK)
def test_files_that_cannot_be_are_told_in_one_line(files: TlsFolder, authority: Authority, name: str) -> None:
    """Which file, and what is wrong with it; a password is never asked for on the terminal."""
    break_them, why = BREAK[name]
    break_them(files, authority)
    with pytest.raises(AuthError, match=why) as raised:
        Tls(files.cert, files.key, files.ca)
    assert "\n" not in str(raised.value)
