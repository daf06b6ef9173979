"""Certificates and token files for a server that is being tested; they live as long as the exit stack."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

IDENTITIES = ("localhost", "127.0.0.1")


def can_make_certificates() -> bool:
    """Whether trustme is here, which makes them; it comes with the extra `dev`."""
    return importlib.util.find_spec("trustme") is not None


def certificates(mutual: bool, stack: ExitStack) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings of a server that speaks TLS, with clients' certificates if `mutual`; and the PEM texts of a client."""
    trustme: Any = importlib.import_module("trustme")
    authority = trustme.CA()
    server, client = authority.issue_cert(*IDENTITIES), authority.issue_cert("client@example.org")
    folder = _folder(stack)
    settings = {"tls_cert": folder / "server.pem", "tls_key": folder / "server.key"}
    server.private_key_pem.write_to_path(settings["tls_key"])
    for link in server.cert_chain_pems:
        link.write_to_path(settings["tls_cert"], append=True)
    if mutual:
        settings["tls_client_ca"] = folder / "ca.pem"
        authority.cert_pem.write_to_path(settings["tls_client_ca"])
    return settings, {
        "root_certificates": authority.cert_pem.bytes().decode(),
        "private_key": client.private_key_pem.bytes().decode(),
        "certificate_chain": "".join(link.bytes().decode() for link in client.cert_chain_pems),
    }


def token_file(tokens: Mapping[str, Sequence[str]], stack: ExitStack) -> dict[str, Any]:
    """Settings of a server that knows these tokens, each with its scopes."""
    path = _folder(stack) / "tokens"
    lines = [
        f"token-{number}:{','.join(scopes)}:{hashlib.sha256(token.encode()).hexdigest()}\n"
        for number, (token, scopes) in enumerate(tokens.items())
    ]
    path.write_text("".join(lines), encoding="utf-8")
    path.chmod(0o600)
    return {"tokens": path}


def _folder(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlx_grpc_testing_")))
