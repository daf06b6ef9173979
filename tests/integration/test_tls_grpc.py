"""TLS and mutual TLS over gRPC: who is let in, and what replaced files change."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import grpc
import pytest

from mlx_grpc import testing
from mlx_grpc.errors import Unavailable
from tests.helpers.auth import Authority, TlsFolder, client_of, trusting

SCRIPT = testing.Script(replies={"ping": "pong"})


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def theirs() -> Authority:
    """An authority that nobody here trusts."""
    return Authority()


def test_a_client_that_trusts_the_authority_is_served(tmp_path: Path, ours: Authority) -> None:
    """The plain case, streams included."""
    files = TlsFolder(tmp_path, ours.issue())
    with testing.run(SCRIPT, **files.settings) as server, client_of(server, ours) as client:
        assert client.generate("ping").text == "pong"
        with client.stream("ping") as stream:
            assert "".join(stream.text()) == "pong"


def test_a_client_of_another_authority_refuses_the_server(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    """The certificate is not one that it trusts."""
    files = TlsFolder(tmp_path, ours.issue())
    with (
        testing.run(SCRIPT, **files.settings) as server,
        client_of(server, theirs) as client,
        pytest.raises(Unavailable, match="CERTIFICATE"),
    ):
        client.server_info()


def test_an_expired_certificate_is_refused_by_clients(tmp_path: Path, ours: Authority) -> None:
    """Expired is expired, though the authority is trusted."""
    files = TlsFolder(tmp_path, ours.issue(expired=True))
    with (
        testing.run(SCRIPT, **files.settings) as server,
        client_of(server, ours) as client,
        pytest.raises(Unavailable, match="CERTIFICATE"),
    ):
        client.server_info()


def test_a_certificate_for_another_name_is_refused_by_clients(tmp_path: Path, ours: Authority) -> None:
    """Trusted, but somebody else's."""
    files = TlsFolder(tmp_path, ours.issue("another.example"))
    with testing.run(SCRIPT, **files.settings) as server, client_of(server, ours) as client, pytest.raises(Unavailable):
        client.server_info()


def test_a_client_without_tls_is_not_served(tmp_path: Path, ours: Authority) -> None:
    """Nothing is said in plain text."""
    files = TlsFolder(tmp_path, ours.issue())
    with testing.run(SCRIPT, **files.settings) as server, client_of(server) as client, pytest.raises(Unavailable):
        client.server_info()


def test_mutual_tls_lets_in_whom_the_authority_signed(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    """One's own certificate of that authority, and nothing else: none, another's, or an expired one."""
    files = TlsFolder(tmp_path, ours.issue(), ours.pem)
    with testing.run(SCRIPT, **files.settings) as server:
        with client_of(server, ours, ours.issue("client")) as client:
            assert client.generate("ping").text == "pong"
        for identity in (None, theirs.issue("client"), ours.issue("client", expired=True)):
            with client_of(server, ours, identity) as client, pytest.raises(Unavailable):
                client.server_info()


def test_replaced_files_are_used_for_new_connections(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    """Without a restart; the open connection goes on as it is."""
    files = TlsFolder(tmp_path, ours.issue())
    with testing.run(SCRIPT, **files.settings) as server, client_of(server, ours) as before:
        before.server_info()
        files.replace(theirs.issue())
        with client_of(server, theirs) as after:
            assert after.generate("ping").text == "pong"
        with client_of(server, ours) as late, pytest.raises(Unavailable):
            late.server_info()
        assert before.generate("ping").text == "pong"


def test_a_replaced_client_authority_counts_at_once(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    """Whom it signed comes in, and whom the one before signed does not."""
    files = TlsFolder(tmp_path, ours.issue(), ours.pem)
    with testing.run(SCRIPT, **files.settings) as server:
        files.replace(ours.issue(), theirs.pem)
        with client_of(server, ours, theirs.issue("client")) as client:
            assert client.generate("ping").text == "pong"
        with client_of(server, ours, ours.issue("client")) as client, pytest.raises(Unavailable):
            client.server_info()


def test_broken_files_leave_the_last_good_ones(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    """Garbage, and a certificate whose key has not come yet; then the key comes."""
    files = TlsFolder(tmp_path, ours.issue())
    with testing.run(SCRIPT, **files.settings) as server:
        new = theirs.issue()
        for content in (b"garbage", new.chain):
            files.cert.write_bytes(content)
            with client_of(server, ours) as client:
                assert client.generate("ping").text == "pong"
        files.key.write_bytes(new.key)
        with client_of(server, theirs) as client:
            assert client.generate("ping").text == "pong"


def test_files_that_change_under_new_connections_break_none(tmp_path: Path, ours: Authority) -> None:
    """Certificate and key are replaced one after the other, while clients connect: a half is never used."""
    files = TlsFolder(tmp_path, ours.issue())
    identities, ended = [ours.issue() for _ in range(4)], threading.Event()

    def replace() -> None:
        while not ended.is_set():
            for identity in identities:
                files.replace(identity)

    with testing.run(SCRIPT, **files.settings) as server:
        replacing = threading.Thread(target=replace)
        replacing.start()
        try:
            for _ in range(20):
                with client_of(server, ours) as client:
                    client.server_info()
        finally:
            ended.set()
            replacing.join()


def test_a_session_is_no_way_past_a_replaced_authority(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    """A client that kept its session has to show its certificate again."""
    files = TlsFolder(tmp_path, ours.issue(), ours.pem)
    context = trusting(ours, tmp_path, ours.issue("client"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where a session is there as soon as hands are shaken
    context.set_alpn_protocols(["h2"])
    with testing.run(SCRIPT, **files.settings) as server:
        host, _, port = server.target.rpartition(":")
        address = (host, int(port))
        with socket.create_connection(address) as plain, context.wrap_socket(plain, server_hostname=host) as first:
            session = first.session
        files.replace(ours.issue(), theirs.pem)
        with socket.create_connection(address) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain, server_hostname=host, session=session)


def test_old_versions_of_tls_are_refused(tmp_path: Path, ours: Authority) -> None:
    """Both kinds of listener speak TLS 1.2 and later."""
    files = TlsFolder(tmp_path, ours.issue())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ours.pem.decode())
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with testing.run(SCRIPT, **files.settings) as server:
        for where in server.server.addresses.values():
            host, _, port = where.rpartition(":")
            with socket.create_connection((host, int(port))) as plain, pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(plain, server_hostname=host)


def test_the_unix_socket_stays_plain(tmp_path: Path, ours: Authority) -> None:
    """It never leaves the machine; the file's mode says who may connect."""
    files, path = TlsFolder(tmp_path, ours.issue()), tmp_path / "s"
    with testing.run(SCRIPT, grpc_socket=path, **files.settings):
        assert path.stat().st_mode & 0o777 == 0o600
        with grpc.insecure_channel(f"unix:{path}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
