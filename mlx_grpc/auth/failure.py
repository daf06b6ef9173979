"""The one error of this room."""

from __future__ import annotations


class AuthError(Exception):
    """A file or an address that a server must not start with; one line for a person."""
