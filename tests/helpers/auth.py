"""Certificates and token files made on the spot, and plain HTTP calls for what no client library would send."""

from __future__ import annotations

import datetime
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from mlx_grpc import testing
from mlx_grpc.auth.tokens import TokenScope, make_token
from mlx_grpc.client import Client

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
ADDRESS = "127.0.0.1"
PATIENCE_SECONDS = 30.0


class Authority:
    """Somebody who signs certificates."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem: bytes = self._ca.cert_pem.bytes()

    def issue(self, name: str = ADDRESS, *, expired: bool = False) -> Identity:
        """A certificate for a server at ADDRESS, or for a client of another name."""
        times: dict[str, Any] = {"not_before": LONG_AGO, "not_after": YESTERDAY} if expired else {}
        made = self._ca.issue_cert(name, **times)
        return Identity(b"".join(part.bytes() for part in made.cert_chain_pems), made.private_key_pem.bytes())


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM: a certificate and its key."""

    chain: bytes
    key: bytes


class TlsFolder:
    """The files that a server is started with, for tests to replace."""

    def __init__(self, folder: Path, identity: Identity, client_ca: bytes | None = None) -> None:
        self._folder = folder
        self.cert, self.key, self.ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        self._mutual = client_ca is not None
        self.replace(identity, client_ca)

    def replace(self, identity: Identity, client_ca: bytes | None = None) -> None:
        """As tools that renew certificates do it: whole files, moved into their places one after the other."""
        parts = {self.cert: identity.chain, self.key: identity.key} | ({self.ca: client_ca} if client_ca else {})
        for path, content in parts.items():
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)

    @property
    def settings(self) -> dict[str, Any]:
        """For `testing.run`."""
        return {"tls_cert": self.cert, "tls_key": self.key} | ({"tls_client_ca": self.ca} if self._mutual else {})


class TokenFolder:
    """A token file with three tokens, for tests to change."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens"
        self._lines: dict[str, str] = {}
        self.generate = self.add("gwen")
        self.admin = self.add("ada", TokenScope.ADMIN)
        self.other = self.add("otto")

    def add(self, name: str, scope: TokenScope = TokenScope.GENERATE) -> str:
        """A new token, known from now on."""
        token, self._lines[name] = make_token(name, scope)
        self._write()
        return token

    def revoke(self, name: str) -> None:
        """Take the token's line out."""
        del self._lines[name]
        self._write()

    def _write(self) -> None:
        self.path.write_text("# of the tests\n" + "".join(f"{line}\n" for line in self._lines.values()))


def client_of(
    server: testing.LocalServer,
    authority: Authority | None = None,
    identity: Identity | None = None,
    token: str | None = None,
) -> Client:
    """A client on a connection of its own, which trusts that authority and shows that identity."""
    return Client(
        server.target,
        tls=authority is not None,
        root_certificates=authority.pem if authority else None,
        private_key=identity.key if identity else None,
        certificate_chain=identity.chain if identity else None,
        token=token,
        retry=False,
        timeout_seconds=PATIENCE_SECONDS,
        options={"grpc.use_local_subchannel_pool": 1},
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's."""
        return json.loads(self.body)


def http_call(
    url: str,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """One call on a connection of its own. Raises ssl.SSLError and OSError as they come."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.netloc, timeout=PATIENCE_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE_SECONDS)
    sent = dict(headers or {}) | ({"Content-Type": "application/json"} if body is not None else {})
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def trusting(authority: Authority, folder: Path, identity: Identity | None = None) -> ssl.SSLContext:
    """For `http_call`. Python's ssl takes certificates of its own from files alone, which go into the folder."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if identity:
        chain, key = folder / "client.pem", folder / "client.key"
        chain.write_bytes(identity.chain)
        key.write_bytes(identity.key)
        context.load_cert_chain(chain, key)
    return context


def bearer(token: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {token}"}
