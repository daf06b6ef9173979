"""Decides whether a call may be made, from what it brought along. Knows no gRPC and no HTTP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from mlx_grpc.auth.reload import FromFiles
from mlx_grpc.auth.tokens import KnownToken, TokenScope, find_token
from mlx_grpc.errors import NoToken, WrongScope

HOW = "send one as `authorization: Bearer TOKEN`"


class Access:
    """Who may call. Without tokens everybody may, where the address lets them come."""

    def __init__(self, tokens: FromFiles[tuple[KnownToken, ...]] | None = None) -> None:
        self._tokens = tokens

    @property
    def needs_tokens(self) -> bool:
        """Whether a call has to bring one."""
        return self._tokens is not None

    def require(self, authorization: Sequence[str], scope: TokenScope, *, basic: bool = False) -> KnownToken | None:
        """Let a call with these authorization headers pass, or raise NoToken or WrongScope. Returns the token that it
        brought; None where none is needed.

        `basic` takes a token as the password of HTTP's Basic scheme, too, whatever the user's name: it is what
        browsers ask people for.
        """
        if self._tokens is None:
            return None
        token = find_token(self._tokens.current(), _sent_token(authorization, basic))
        if token is None:
            raise NoToken("the token is not known here: it was revoked, or is another server's")
        if not token.allows(scope):
            raise WrongScope(f"the token's scope is not {scope.value}")
        return token


def _sent_token(authorization: Sequence[str], basic: bool) -> str:
    if not authorization:
        raise NoToken(f"this server needs a token; {HOW}")
    if len(authorization) > 1:
        raise NoToken(f"there is more than one authorization header; {HOW}")
    scheme, _, sent = authorization[0].strip().partition(" ")
    sent = sent.strip()
    if sent and scheme.lower() == "bearer":
        return sent
    if sent and scheme.lower() == "basic" and basic:
        try:
            return base64.b64decode(sent, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            pass
    raise NoToken(f"the authorization header holds no bearer token; {HOW}")


OPEN = Access()
"""Everybody."""
