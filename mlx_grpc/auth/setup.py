"""From the settings to what the listeners need of this room."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mlx_grpc.auth.access import Access
from mlx_grpc.auth.policy import check_settings
from mlx_grpc.auth.tls import Tls
from mlx_grpc.auth.tokens import token_file
from mlx_grpc.auth.watch import Watch
from mlx_grpc.bounds.descriptors import Spare
from mlx_grpc.config import Config

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Auth:
    """`tls` is None for a server in plain text. `watch` is started and closed by the server."""

    access: Access
    tls: Tls | None
    watch: Watch


def open_auth(config: Config) -> Auth:
    """Read the files that the settings name. Raises AuthError for files and settings that no server must start with."""
    if warning := check_settings(config):
        log.warning("--insecure: %s", warning)
    spare = Spare()
    tokens = token_file(config.tokens, spare) if config.tokens else None
    tls = None
    if config.tls_cert and config.tls_key:
        tls = Tls(config.tls_cert, config.tls_key, config.tls_client_ca, spare)
    files = [files for files in (tokens, tls.files if tls else None) if files]
    return Auth(Access(tokens), tls, Watch(files, spare))
