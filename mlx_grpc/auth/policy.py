"""Which addresses may be served how. Pure."""

from __future__ import annotations

from mlx_grpc.auth.failure import AuthError
from mlx_grpc.config import Config
from mlx_grpc.listening import is_loopback


def exposed_flags(config: Config) -> list[str]:
    """The flags with addresses that other machines can reach."""
    hosts = {"--host": config.host, "--admin-host": config.admin_host}
    return [f"{flag} {host}" for flag, host in hosts.items() if not is_loopback(host)]


def missing_flags(config: Config) -> list[str]:
    """What an address that other machines can reach needs, and these settings lack."""
    return [
        flag
        for flag, given in (("--tls-cert and --tls-key", config.tls_cert), ("--tokens", config.tokens))
        if not given
    ]


def check_settings(config: Config) -> str:
    """A warning for the log where --insecure lets pass what else is refused; "" where all is well. Raises AuthError."""
    if (config.tls_cert is None) != (config.tls_key is None):
        raise AuthError("--tls-cert and --tls-key go together: give both or neither")
    if config.tls_client_ca and not config.tls_cert:
        raise AuthError("--tls-client-ca needs --tls-cert and --tls-key")
    exposed, missing = exposed_flags(config), missing_flags(config)
    if not exposed or not missing:
        return ""
    what = f"{' and '.join(exposed)} can be reached from other machines without {' and '.join(missing)}"
    if not config.insecure:
        raise AuthError(f"{what}; give them, or say --insecure")
    return what
