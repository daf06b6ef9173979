"""Token files: what a line may be, and who is who."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.tokens import (
    MAX_FILE_BYTES,
    MAX_TOKENS,
    TokenScope,
    find_token,
    make_token,
    parse_tokens,
    token_file,
)

HASH = hashlib.sha256(b"a secret").hexdigest()


def test_a_made_token_is_known_by_its_line() -> None:
    """What `make_token` gives the client is what its line stands for, and the line does not hold it."""
    token, line = make_token("alice", TokenScope.GENERATE)
    (known,) = parse_tokens(line)
    assert find_token([known], token) is known
    assert known.name == "alice"
    assert token not in line


def test_no_two_tokens_are_the_same() -> None:
    """Tokens are random, whatever the name."""
    assert make_token("alice", TokenScope.ADMIN)[0] != make_token("alice", TokenScope.ADMIN)[0]


@pytest.mark.parametrize("sent", ["", "a secre", "a secret ", "A secret", "\ud800", HASH])
def test_another_token_is_unknown(sent: str) -> None:
    """Near is not enough, and the hash is not the token."""
    assert find_token(parse_tokens(f"alice:admin:{HASH}"), sent) is None


def test_blank_lines_and_comments_are_left_out() -> None:
    """And so are spaces around, Windows' line ends, and capitals in the hash."""
    text = f"\n# mine\n  alice : generate : {HASH.upper()}  \r\n\r\n"
    assert [token.name for token in parse_tokens(text)] == ["alice"]


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ("generate", {TokenScope.GENERATE}),
        ("admin", {TokenScope.GENERATE, TokenScope.ADMIN}),
        ("generate,admin", {TokenScope.GENERATE, TokenScope.ADMIN}),
    ],
)
def test_admin_includes_generate(scopes: str, allowed: set[TokenScope]) -> None:
    """And generate does not include admin."""
    (token,) = parse_tokens(f"alice:{scopes}:{HASH}")
    assert {scope for scope in TokenScope if token.allows(scope)} == allowed


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        f"alice:{HASH}",
        f"alice:admin:{HASH}:more",
        f"alice::{HASH}",
        f"alice:root:{HASH}",
        f"alice:admin,:{HASH}",
        f":admin:{HASH}",
        f"al ice:admin:{HASH}",
        f"{'a' * 65}:admin:{HASH}",
        "alice:admin:",
        f"alice:admin:{HASH[:-1]}",
        f"alice:admin:{HASH[:-1]}g",
        "alice:admin:mlxgrpc_iamthetokenitself",
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str) -> None:
    """The number is said and the line is not: it may hold a token."""
    with pytest.raises(AuthError, match="line 3") as raised:
        parse_tokens(f"# one\nbob:admin:{HASH}\n{line}\n")
    assert "iamthetoken" not in str(raised.value)
    assert HASH[:-1] not in str(raised.value)


def test_a_name_is_given_once() -> None:
    """Else nobody would know which line to take out."""
    with pytest.raises(AuthError, match="line 2: the name is that of line 1"):
        parse_tokens(f"alice:admin:{HASH}\nalice:generate:{HASH}")


def test_a_file_has_a_bounded_number_of_tokens() -> None:
    """Every call compares with all of them."""
    with pytest.raises(AuthError, match=str(MAX_TOKENS)):
        parse_tokens("\n".join(f"t{number}:generate:{HASH}" for number in range(MAX_TOKENS + 1)))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-a", "ä", "a\n", "x" * 65])
def test_a_name_that_no_file_takes_is_not_made(name: str) -> None:
    """`make_token` and `parse_tokens` agree on names."""
    with pytest.raises(AuthError, match="name"):
        make_token(name, TokenScope.GENERATE)


@given(st.text())
def test_any_text_is_tokens_or_refused(text: str) -> None:
    """Nothing else is raised, whatever the file holds."""
    with suppress(AuthError):
        assert all(token.scopes for token in parse_tokens(text))


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\xff\xfe", "UTF-8"), (b"alice", "line 1"), (b"#" * (MAX_FILE_BYTES + 1), "more than"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    """One line with the path and the reason."""
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AuthError, match=why) as raised:
        token_file(path)
    assert str(raised.value).count(str(path)) == 1
    assert "\n" not in str(raised.value)
