"""TLS from PEM files, for gRPC and HTTP. New connections get the files as they are now; open ones stay as they are."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.reload import FromFiles, read_bytes
from mlx_grpc.bounds.descriptors import Spare

MAX_PEM_BYTES = 1024 * 1024
HTTP_PROTOCOLS = ["http/1.1"]


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files hold, checked: the key is the certificate's. `context` is the same for Python's own TLS."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext = field(compare=False)


class Tls:
    """The files' owner. With `client_ca`, clients need a certificate that it signed (mutual TLS)."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None, spare: Spare | None = None) -> None:
        """Raises AuthError for files that are missing, broken or of different pairs."""
        paths = [cert, key, *([client_ca] if client_ca else [])]
        self._mutual = client_ca is not None
        self.files = FromFiles(paths, lambda: _read(cert, key, client_ca), spare)
        """For whoever reads them again from time to time."""

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`. grpc asks for the files before each handshake, in a thread of its own."""
        told = self.files.current()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            current = self.files.current()
            if current is told:
                return None
            told = current
            return _for_grpc(current)

        make: Any = grpc.dynamic_ssl_server_credentials  # its types do not know that None means: as before
        credentials: grpc.ServerCredentials = make(_for_grpc(told), changed, self._mutual)
        return credentials

    def ssl_context(self) -> ssl.SSLContext:
        """For asyncio's servers: hands each handshake over to a context of the files as they are then."""
        current = self.files.current()
        front = _context(current.client_ca)
        front.sni_callback = self._hand_over  # called for each handshake, whether the client names a server or not
        return front

    def _hand_over(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, front: ssl.SSLContext) -> None:
        connection.context = self.files.current().context


def _read(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    chain = read_bytes(cert, "certificate", MAX_PEM_BYTES)
    key_bytes = read_bytes(key, "key", MAX_PEM_BYTES)
    authority = read_bytes(client_ca, "client CA", MAX_PEM_BYTES) if client_ca else None
    try:
        context = _context(authority)
    except (ssl.SSLError, ValueError):  # ValueError: there are bytes that are no ASCII
        raise AuthError(f"client CA {client_ca} holds no PEM certificates") from None
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise AuthError(f"key {key} is not that of certificate {cert}") from None
        raise AuthError(f"certificate {cert} or key {key} is not in PEM format, or broken") from None
    except OSError as error:
        raise AuthError(f"certificate {cert} or key {key}: {error.strerror or error}") from None
    except _EncryptedKey:
        raise AuthError(f"key {key} is encrypted; give one without a password") from None
    return Certificates(chain, key_bytes, authority, context)


def _context(client_ca: bytes | None) -> ssl.SSLContext:
    """TLS 1.2 and later. Raises ssl.SSLError or ValueError for a CA that is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(HTTP_PROTOCOLS)
    # No session outlives its connection: a resumed one would not show its client's certificate again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if client_ca is not None:
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _for_grpc(current: Certificates) -> grpc.ServerCertificateConfiguration:
    configuration: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
        [(current.key, current.chain)], current.client_ca
    )
    return configuration


class _EncryptedKey(Exception):
    """OpenSSL would ask for the password on the terminal."""


def _no_password() -> NoReturn:
    raise _EncryptedKey
