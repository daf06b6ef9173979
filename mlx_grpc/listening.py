"""Addresses to listen on: taken before anything is served, with one line that says what is wrong."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

BACKLOG = 1024
MAX_SOCKET_PATH_BYTES = 103
"""The least that a system here allows: macOS; Linux has four more."""
HIDDEN_SOCKET_NAME_BYTES = 9
"""A socket has a name of this length before it is moved into place."""


class ListenError(Exception):
    """An address cannot be listened on; one line for a person."""


class AddressInUse(ListenError):
    """Somebody else listens there now."""


def bind(host: str, port: int, flag: str) -> list[socket.socket]:
    """Sockets on every address of the host, all on one port; 0 is any free one. Raises ListenError.

    `flag` is what sets the port, for the message.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            taken = socket.socket(family, kind, protocol)
            sockets.append(taken)
            taken.setblocking(False)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken.bind((address[0], port_of(sockets) or address[1], *address[2:]))
    except OSError as error:
        close_all(sockets)
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"port {port} on {host} is in use; choose another with {flag}, or 0 for any") from None
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return sockets


def check_host(host: str, flag: str) -> None:
    """Raises ListenError for what is not an address of this machine, whatever the port. `flag` is what gave it."""
    try:
        close_all(bind(host, 0, flag))
    except (ListenError, UnicodeError) as error:
        why = "it is not a host name" if isinstance(error, UnicodeError) else str(error).rpartition(": ")[2]
        raise ListenError(f"{flag}: cannot listen on {host!r}: {why}") from None


def check_socket(path: Path, flag: str) -> None:
    """Raises ListenError where no Unix socket can be made; an old one that nobody answers at may lie there."""
    name_bytes = len(os.fsencode(path.name))
    length = len(os.fsencode(path)) - name_bytes + max(name_bytes, HIDDEN_SOCKET_NAME_BYTES)
    if length > MAX_SOCKET_PATH_BYTES:
        raise ListenError(f"{flag}: the path has {length} bytes, and a socket's has at most {MAX_SOCKET_PATH_BYTES}")
    if not os.access(path.parent, os.R_OK | os.W_OK | os.X_OK):
        what = "may not be written to" if path.parent.is_dir() else "is not a folder"
        raise ListenError(f"{flag}: {path.parent} {what}")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise ListenError(f"{flag}: {path} is a link")
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{flag}: {path} is there already, and is not a socket")
    _check_unanswered(path, flag)


def _check_unanswered(path: Path, flag: str) -> None:
    """Raises ListenError unless nobody has the socket any more, which only a refusal says: a server may be too busy to
    answer, or another user's."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(1.0)
        try:
            knocking.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT, None):
                raise ListenError(f"{flag}: whether a server listens at {path}: {error.strerror or error}") from None
        raise AddressInUse(f"{flag}: another server listens at {path}")


def check_free(host: str, port: int, flag: str) -> None:
    """For a server that binds by itself, and tells of a port in use in many lines. Raises ListenError."""
    close_all(bind(host, port, flag))


def port_of(sockets: Sequence[socket.socket]) -> int:
    """The port that the first of them has; 0 while it has none."""
    port: int = sockets[0].getsockname()[1] if sockets else 0
    return port


def close_all(sockets: Sequence[socket.socket]) -> None:
    """Give the addresses back."""
    for taken in sockets:
        taken.close()


def host_and_port(host: str, port: int) -> str:
    """HOST:PORT as URLs and gRPC targets have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is reached from this machine alone. Only `localhost` is known by name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
