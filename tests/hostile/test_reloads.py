"""A token that was revoked, a certificate that was replaced: they count within seconds, whatever happens meanwhile."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from mlx_grpc import testing
from mlx_grpc.auth.reload import SETTLED_SECONDS
from mlx_grpc.auth.tokens import parse_tokens
from mlx_grpc.client import Client
from mlx_grpc.errors import NoToken
from tests.helpers.auth import Authority, TlsFolder, TokenFolder, bearer, client_of, http_call
from tests.hostile.helpers.life import LOOK_EVERY_SECONDS, Attacked, attacked, eventually

pytestmark = pytest.mark.prove
WITHIN_SECONDS = 5.0
can_limit_others = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")


@contextmanager
def no_descriptor_left(server: Attacked) -> Iterator[None]:
    """The server can open nothing more: all that it may have is open, silent connections among it."""
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    folder = Path(f"/proc/{server.pid}/fd")
    host, _, port = server.addresses["admin"].rpartition(":")
    with ExitStack() as connections:
        for _ in range(100):
            used = {int(one.name) for one in folder.iterdir()}
            if len(used) == max(used) + 1:
                break
            connections.enter_context(socket.create_connection((host, int(port)), timeout=30))
            time.sleep(LOOK_EVERY_SECONDS)  # others may close theirs meanwhile, so no count tells that it was accepted
        else:
            pytest.fail(f"there are still holes among {sorted(used)}")
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (len(used), before[1]))
        try:
            yield
        finally:
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)


def refused(client: Client) -> bool:
    """Whether the client's token is not known any more."""
    try:
        client.generate("hi", max_tokens=1)
    except NoToken:
        return True
    return False


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFolder:
    return TokenFolder(tmp_path)


@pytest.fixture
def server(tmp_path: Path, tokens: TokenFolder) -> Iterator[Attacked]:
    with attacked(tmp_path, "--tokens", str(tokens.path)) as server:
        yield server


@can_limit_others
def test_revoked_while_no_descriptor_is_left(server: Attacked, tokens: TokenFolder) -> None:
    """The server has one that it gives up for that. Others' tokens stay good, on connections that are there."""
    with (
        Client(server.addresses["grpc"], token=tokens.other, retry=False) as otto,
        Client(server.addresses["grpc"], token=tokens.generate, retry=False) as gwen,
    ):
        assert (refused(otto), refused(gwen)) == (False, False)
        with no_descriptor_left(server):
            tokens.revoke("otto")
            assert eventually(lambda: refused(otto), WITHIN_SECONDS)
            assert not refused(gwen)


@can_limit_others
def test_revoked_at_the_wrong_moment(server: Attacked, tokens: TokenFolder) -> None:
    """The first look at the new file fails, and nothing about it changes any more."""
    with Client(server.addresses["grpc"], token=tokens.other, retry=False) as otto:
        assert not refused(otto)
        aside = tokens.path.with_suffix(".aside")
        tokens.path.rename(aside)
        assert not refused(otto)  # it was seen that there is no file
        with no_descriptor_left(server):
            aside.rename(tokens.path)
            tokens.revoke("otto")
            time.sleep(1.1 * SETTLED_SECONDS)  # the file is at rest by then: a look says that nothing changes any more
            refused(otto)
        assert eventually(lambda: refused(otto), WITHIN_SECONDS)


Broken = Callable[[Path, str], None]


def half_written(path: Path, whole: str) -> None:
    path.write_text(whole[:-20])


def a_folder(path: Path, whole: str) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path, whole: str) -> None:
    path.unlink()
    os.mkfifo(path)


def away(path: Path, whole: str) -> None:
    path.unlink()


def binary(path: Path, whole: str) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize("breaks", [half_written, a_folder, a_pipe, away, binary])
def test_revoked_while_the_file_is_broken(tokens: TokenFolder, breaks: Broken) -> None:
    """As long as it is, the last good one holds, and nobody is locked out; then the new one does."""
    with testing.run(tokens=tokens.path) as server, client_of(server, token=tokens.other) as otto:
        whole = tokens.path.read_text()
        breaks(tokens.path, whole)
        for _ in range(3):
            assert not refused(otto)
        if tokens.path.is_dir():
            tokens.path.rmdir()
        tokens.path.unlink(missing_ok=True)
        tokens.revoke("otto")
        assert eventually(lambda: refused(otto), WITHIN_SECONDS)
        with client_of(server, token=tokens.generate) as gwen:
            assert not refused(gwen)


def test_revoked_by_a_file_that_looks_the_same(tokens: TokenFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As file systems of networks have it, which keep what they knew: what a look says never changes."""
    monkeypatch.setattr("mlx_grpc.auth.reload._mark", lambda path: (1, 1, 1, 1, 1))
    with testing.run(tokens=tokens.path) as server, client_of(server, token=tokens.other) as otto:
        assert not refused(otto)
        tokens.revoke("otto")
        assert eventually(lambda: refused(otto), WITHIN_SECONDS)
        assert http_call(server.http_url, "/v1/models", headers=bearer(tokens.other)).status == 401


def test_a_broken_file_is_not_read_for_every_call(tokens: TokenFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stranger's calls would have the server read it as often as they like."""
    reads = 0

    def counting(text: str) -> object:
        nonlocal reads
        reads += 1
        return parse_tokens(text)

    with testing.run(tokens=tokens.path) as server, client_of(server, token="mlxgrpc_wrong") as stranger:
        tokens.path.write_text("broken")
        assert refused(stranger)
        monkeypatch.setattr("mlx_grpc.auth.tokens.parse_tokens", counting)
        began = time.monotonic()
        calls = 0
        while time.monotonic() - began < 2.0:
            assert refused(stranger)
            calls += 1
    assert calls > 20
    assert reads <= 5


def served_certificate(address: str) -> bytes:
    """What a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain, context.wrap_socket(plain) as wrapped:
        shown = wrapped.getpeercert(binary_form=True)
    assert shown
    return shown


@can_limit_others
@pytest.mark.parametrize("port", ["grpc", "http"])
def test_a_certificate_replaced_at_the_wrong_moment(tmp_path: Path, port: str) -> None:
    """When there is no descriptor to read it with: new connections get it soon, though the files rest."""
    authority = Authority()
    old, new = authority.issue(), authority.issue()
    files = TlsFolder(tmp_path, old)
    flags = ("--tls-cert", str(files.cert), "--tls-key", str(files.key))
    with attacked(tmp_path, *flags) as server:
        address = server.addresses[port]
        assert served_certificate(address) == ssl.PEM_cert_to_DER_cert(old.chain.decode())
        with no_descriptor_left(server):
            files.replace(new)
            time.sleep(0.5)  # some look at them fails, or succeeds
        expected = ssl.PEM_cert_to_DER_cert(new.chain.decode())
        assert eventually(lambda: served_certificate(address) == expected, WITHIN_SECONDS)


def test_a_key_that_does_not_fit_its_certificate_yet(tmp_path: Path) -> None:
    """Between the two moves the old pair serves, and the new one as soon as it is whole."""
    authority = Authority()
    old, new = authority.issue(), authority.issue()
    files = TlsFolder(tmp_path, old)
    with testing.run(**files.settings) as server:
        files.cert.write_bytes(new.chain)
        assert served_certificate(server.target) == ssl.PEM_cert_to_DER_cert(old.chain.decode())
        files.key.write_bytes(new.key)
        expected = ssl.PEM_cert_to_DER_cert(new.chain.decode())
        assert eventually(lambda: served_certificate(server.target) == expected, WITHIN_SECONDS)
        with grpc.secure_channel(server.target, grpc.ssl_channel_credentials(authority.pem)) as channel:
            grpc.channel_ready_future(channel).result(30)
