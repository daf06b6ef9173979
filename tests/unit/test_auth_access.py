"""Who passes with which header."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from mlx_grpc.auth.access import OPEN, Access
from mlx_grpc.auth.tokens import TokenScope, token_file
from mlx_grpc.errors import NoToken, WrongScope
from tests.helpers.auth import TokenFolder


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFolder:
    return TokenFolder(tmp_path)


@pytest.fixture
def access(tokens: TokenFolder) -> Access:
    return Access(token_file(tokens.path))


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def test_without_tokens_everybody_passes() -> None:
    """With any header and with none."""
    OPEN.require([], TokenScope.ADMIN)
    OPEN.require(["Bearer whatever"], TokenScope.ADMIN)


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_a_known_token_passes(access: Access, tokens: TokenFolder, form: str) -> None:
    """The scheme's case and spaces do not matter."""
    access.require([form.format(tokens.generate)], TokenScope.GENERATE)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Bearer nobody's"],
        ["{}"],
        ["Token {}"],
        ["Bearer {} {}"],
        ["Bearer {}", "Bearer {}"],
    ],
)
def test_all_else_is_no_token(access: Access, tokens: TokenFolder, headers: list[str]) -> None:
    """None, empty, unknown, of another scheme, or more than one."""
    with pytest.raises(NoToken) as raised:
        access.require([header.replace("{}", tokens.admin) for header in headers], TokenScope.GENERATE)
    assert tokens.admin not in str(raised.value)


def test_a_scope_that_is_lacking_is_wrong_scope(access: Access, tokens: TokenFolder) -> None:
    """generate is not admin."""
    access.require([f"Bearer {tokens.admin}"], TokenScope.ADMIN)
    with pytest.raises(WrongScope, match="admin"):
        access.require([f"Bearer {tokens.generate}"], TokenScope.ADMIN)


def test_a_revoked_token_is_unknown_at_once(access: Access, tokens: TokenFolder) -> None:
    """No restart and no waiting; the others go on."""
    access.require([f"Bearer {tokens.generate}"], TokenScope.GENERATE)
    tokens.revoke("gwen")
    with pytest.raises(NoToken):
        access.require([f"Bearer {tokens.generate}"], TokenScope.GENERATE)
    access.require([f"Bearer {tokens.other}"], TokenScope.GENERATE)


def test_a_browsers_password_is_a_token(access: Access, tokens: TokenFolder) -> None:
    """Only where it is asked for, and whatever the user's name is."""
    header = basic(f"anybody:{tokens.admin}")
    access.require([header], TokenScope.ADMIN, basic=True)
    with pytest.raises(NoToken):
        access.require([header], TokenScope.ADMIN)


@pytest.mark.parametrize("header", ["Basic", "Basic ?", "Basic /w==", basic("no colon"), basic("ada:wrong")])
def test_a_browsers_password_that_is_none(access: Access, header: str) -> None:
    """Bad base64, bytes that are no text, and wrong passwords are no token."""
    with pytest.raises(NoToken):
        access.require([header], TokenScope.GENERATE, basic=True)
