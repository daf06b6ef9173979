"""TLS on the two HTTP ports."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

import pytest

from mlx_grpc import testing
from tests.helpers.auth import Answer, Authority, Identity, TlsFolder, http_call, trusting

REFUSED = (ssl.SSLError, ConnectionError, http.client.BadStatusLine)
PORTS = {"http": "/v1/models", "admin": "/admin/status"}


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def theirs() -> Authority:
    """An authority that nobody here trusts."""
    return Authority()


class Caller:
    """Calls one of the ports."""

    def __init__(self, server: testing.LocalServer, port: str, folder: Path) -> None:
        self._url = {"http": server.http_url, "admin": server.admin_url}[port]
        self._path, self._folder = PORTS[port], folder

    def __call__(self, authority: Authority, identity: Identity | None = None) -> Answer:
        return http_call(self._url, self._path, context=trusting(authority, self._folder, identity))


@pytest.mark.parametrize("port", PORTS)
def test_who_trusts_the_authority_is_served(tmp_path: Path, ours: Authority, theirs: Authority, port: str) -> None:
    """And who trusts another refuses the server."""
    files = TlsFolder(tmp_path, ours.issue())
    with testing.run(**files.settings) as server:
        call = Caller(server, port, tmp_path)
        assert call(ours).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            call(theirs)


@pytest.mark.parametrize("port", PORTS)
def test_an_expired_certificate_is_refused(tmp_path: Path, ours: Authority, port: str) -> None:
    """By clients."""
    files = TlsFolder(tmp_path, ours.issue(expired=True))
    with testing.run(**files.settings) as server, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        Caller(server, port, tmp_path)(ours)


@pytest.mark.parametrize("port", PORTS)
def test_plain_http_is_not_answered(tmp_path: Path, ours: Authority, port: str) -> None:
    """Nothing is said in plain text."""
    files = TlsFolder(tmp_path, ours.issue())
    with testing.run(**files.settings) as server:
        url = {"http": server.http_url, "admin": server.admin_url}[port].replace("https", "http")
        with pytest.raises(REFUSED):
            http_call(url, PORTS[port])


@pytest.mark.parametrize("port", PORTS)
def test_mutual_tls(tmp_path: Path, ours: Authority, theirs: Authority, port: str) -> None:
    """A certificate of that authority is let in; none, another's and an expired one are not."""
    files = TlsFolder(tmp_path, ours.issue(), ours.pem)
    with testing.run(**files.settings) as server:
        call = Caller(server, port, tmp_path)
        assert call(ours, ours.issue("client")).status == 200
        for identity in (None, theirs.issue("client"), ours.issue("client", expired=True)):
            with pytest.raises(REFUSED):
                call(ours, identity)


@pytest.mark.parametrize("port", PORTS)
def test_replaced_files_are_used_for_new_connections(
    tmp_path: Path, ours: Authority, theirs: Authority, port: str
) -> None:
    """Certificate, key and client authority, without a restart."""
    files = TlsFolder(tmp_path, ours.issue(), ours.pem)
    with testing.run(**files.settings) as server:
        call = Caller(server, port, tmp_path)
        files.replace(theirs.issue(), theirs.pem)
        assert call(theirs, theirs.issue("client")).status == 200
        with pytest.raises(REFUSED):
            call(theirs, ours.issue("client"))
        with pytest.raises(ssl.SSLCertVerificationError):
            call(ours, theirs.issue("client"))


@pytest.mark.parametrize("port", PORTS)
def test_broken_files_leave_the_last_good_ones(tmp_path: Path, ours: Authority, port: str) -> None:
    """A file that is being written takes no port down."""
    files = TlsFolder(tmp_path, ours.issue())
    with testing.run(**files.settings) as server:
        call = Caller(server, port, tmp_path)
        files.cert.write_bytes(b"garbage")
        assert call(ours).status == 200


def test_no_session_is_resumed(tmp_path: Path, ours: Authority) -> None:
    """A resumed session would let a client in that today's authority did not sign."""
    files = TlsFolder(tmp_path, ours.issue(), ours.pem)
    context = trusting(ours, tmp_path, ours.issue("client"))
    with testing.run(**files.settings) as server:
        host, _, port = server.server.admin.address.rpartition(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        session = connection.sock.session
        assert session is None or not session.has_ticket
        connection.close()
