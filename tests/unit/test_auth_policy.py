"""Which addresses are served how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.policy import check_settings
from mlx_grpc.config import Config

TLS = {"tls_cert": Path("cert"), "tls_key": Path("key")}
TOKENS = {"tokens": Path("tokens")}
LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"]
REACHABLE = ["0.0.0.0", "::", "192.168.1.7", "10.0.0.1", "fe80::1", "example.com", "localhost.example.com", "127.1"]


def warning(**settings: Any) -> str:
    return check_settings(Config(**settings))


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_nothing(host: str) -> None:
    """Only this machine reaches it."""
    assert warning(host=host, admin_host=host) == ""


@pytest.mark.parametrize("flag", ["host", "admin_host"])
@pytest.mark.parametrize("host", REACHABLE)
@pytest.mark.parametrize("given", [{}, TLS, TOKENS])
def test_other_addresses_need_tls_and_tokens(flag: str, host: str, given: dict[str, Path]) -> None:
    """One of them is not enough, and names are not looked up: `localhost` alone is known."""
    with pytest.raises(AuthError, match="--insecure"):
        warning(**{flag: host}, **given)


@pytest.mark.parametrize("flag", ["host", "admin_host"])
def test_with_both_all_is_well(flag: str) -> None:
    """Certificates of clients are no tokens: they carry no scope."""
    assert warning(**{flag: "0.0.0.0"}, **TLS, **TOKENS) == ""
    with pytest.raises(AuthError, match="without --tokens"):
        warning(**{flag: "0.0.0.0"}, **TLS, tls_client_ca=Path("ca"))


def test_insecure_is_warned_of() -> None:
    """The warning says what is open and what is missing; there is none where nothing is open."""
    assert warning(host="0.0.0.0", insecure=True, **TLS) == (
        "--host 0.0.0.0 can be reached from other machines without --tokens"
    )
    assert warning(insecure=True) == ""


def test_the_refusal_is_one_line_that_says_what_to_do() -> None:
    """It names the addresses and the flags."""
    with pytest.raises(AuthError) as raised:
        warning(host="0.0.0.0", admin_host="::")
    assert str(raised.value) == (
        "--host 0.0.0.0 and --admin-host :: can be reached from other machines without --tls-cert and --tls-key and "
        "--tokens; give them, or say --insecure"
    )


@pytest.mark.parametrize(
    "settings", [{"tls_cert": "c"}, {"tls_key": "k"}, {"tls_client_ca": "a"}, {"tls_cert": "c", "tls_client_ca": "a"}]
)
def test_half_of_tls_is_refused(settings: dict[str, str]) -> None:
    """Nobody should believe that they serve TLS when they do not."""
    with pytest.raises(AuthError, match="--tls-cert and --tls-key"):
        warning(**settings)
