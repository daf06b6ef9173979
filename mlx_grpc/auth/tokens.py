"""Bearer tokens, known by their hashes: one `name:scopes:sha256hex` a line in a file; `#` begins a comment.

SHA-256 without salt or stretching is enough since a token is 256 random bits: there is nothing to guess and no table of
such tokens to look in. Words that people choose would need more, and are not made here.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.auth.reload import FromFiles, read_bytes
from mlx_grpc.bounds.descriptors import Spare

PREFIX = "mlxgrpc_"
"""By which people, and programs that look for leaked secrets, know a token of ours."""
RANDOM_BYTES = 32
MAX_TOKENS = 1024
MAX_FILE_BYTES = 256 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


class TokenScope(enum.Enum):
    """What a token allows. `admin` includes `generate`."""

    GENERATE = "generate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A line of the file. The token itself is nowhere."""

    name: str
    scopes: frozenset[TokenScope]
    digest: bytes

    def allows(self, scope: TokenScope) -> bool:
        """Whether the scope is among the token's, or included in one of them."""
        return scope in self.scopes or TokenScope.ADMIN in self.scopes


def token_file(path: Path, spare: Spare | None = None) -> FromFiles[tuple[KnownToken, ...]]:
    """The tokens of a file, read again when it changes. Raises AuthError."""
    return FromFiles([path], lambda: _read(path), spare)


def parse_tokens(text: str) -> tuple[KnownToken, ...]:
    """The lines of a token file.

    Raises AuthError with the number of the first bad line, and nothing of what it says: it may hold a token.
    """
    known: list[KnownToken] = []
    names: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        token = _parse_line(line, number)
        if first := names.get(token.name):
            raise AuthError(f"line {number}: the name is that of line {first}; give each token its own")
        names[token.name] = number
        known.append(token)
    if len(known) > MAX_TOKENS:
        raise AuthError(f"more than {MAX_TOKENS} tokens")
    return tuple(known)


def find_token(known: Sequence[KnownToken], sent: str) -> KnownToken | None:
    """The token of that text. Takes the same time wherever it stands, or whether it does."""
    digest = hashlib.sha256(sent.encode("utf-8", "surrogatepass")).digest()
    found = None
    for token in known:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


def make_token(name: str, scope: TokenScope) -> tuple[str, str]:
    """A new token, and the line that makes it known. Raises AuthError for a name that cannot be."""
    if not _NAME.fullmatch(name):
        raise AuthError(
            "a token's name has 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit"
        )
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    return token, f"{name}:{scope.value}:{hashlib.sha256(token.encode()).hexdigest()}"


def _read(path: Path) -> tuple[KnownToken, ...]:
    try:
        return parse_tokens(read_bytes(path, "token file", MAX_FILE_BYTES).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise AuthError(f"token file {path} is no UTF-8 text") from None
    except AuthError as error:
        text = str(error)
        raise AuthError(text if str(path) in text else f"token file {path}, {text}") from None


def _parse_line(line: str, number: int) -> KnownToken:
    parts = line.split(":")
    if len(parts) != 3:
        raise AuthError(f"line {number}: a line is name:scopes:sha256hex; `mlx-grpc token NAME` makes one")
    name, scopes, digest = (part.strip() for part in parts)
    if not _NAME.fullmatch(name):
        raise AuthError(f"line {number}: a name has 1 to 64 letters, digits, '.', '_' and '-'")
    if not _HASH.fullmatch(digest.lower()):
        raise AuthError(f"line {number}: the hash is not 64 hexadecimal digits; `mlx-grpc token NAME` makes one")
    try:
        found = frozenset(TokenScope(scope.strip()) for scope in scopes.split(","))
    except ValueError:
        raise AuthError(f"line {number}: scopes are generate and admin, with a comma between") from None
    return KnownToken(name, found, bytes.fromhex(digest))
