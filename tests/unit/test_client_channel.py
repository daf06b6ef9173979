"""The client's channel settings, and what importing the client brings along."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

from mlx_grpc import __version__
from mlx_grpc.client import AsyncClient, Client
from mlx_grpc.client.channel import ChannelSettings, service_config


def test_only_what_may_help_is_retried() -> None:
    """UNAVAILABLE and RESOURCE_EXHAUSTED, a bounded number of times."""
    policy = json.loads(service_config())["methodConfig"][0]["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    assert policy["maxAttempts"] <= 5  # gRPC takes no more


def test_own_options_win() -> None:
    """A user's channel option replaces the client's."""
    options = dict(ChannelSettings(options={"grpc.keepalive_time_ms": 5}).channel_options())
    assert options["grpc.keepalive_time_ms"] == 5
    assert __version__ in options["grpc.primary_user_agent"]


def test_retries_can_be_switched_off() -> None:
    """Then there is no policy at all."""
    assert "grpc.service_config" not in dict(ChannelSettings(retry=False).channel_options())


def test_certificates_mean_tls() -> None:
    """Giving a certificate and then sending plain text would be a trap."""
    assert ChannelSettings(root_certificates=b"pem").secure
    assert not ChannelSettings().secure


@pytest.mark.parametrize(
    "settings", [{"private_key": b"k"}, {"certificate_chain": b"c"}, {"target": ""}, {"token": "a\nb"}]
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    """Half a key pair, no target, and a token that no header can hold are refused at once."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Client(**settings)


def test_the_token_travels_as_bearer() -> None:
    """As metadata of each call."""
    assert ChannelSettings(token="secret").metadata() == (("authorization", "Bearer secret"),)
    assert ChannelSettings().metadata() == ()


def test_methods_are_documented_for_editors() -> None:
    """Methods made from one call keep its parameters and words, in both clients."""
    for client in (Client, AsyncClient):
        parameters = list(inspect.signature(client.tokenize).parameters)
        assert parameters[:3] == ["self", "text", "messages"]
        assert "special tokens" in (inspect.getdoc(client.tokenize) or "")


def test_both_clients_have_the_same_methods() -> None:
    """Who knows one knows the other."""
    assert {name for name in dir(Client) if name[0] != "_"} == {name for name in dir(AsyncClient) if name[0] != "_"}


def test_importing_the_client_brings_no_server() -> None:
    """The base install has neither MLX nor transformers, msgspec or pydantic."""
    unwanted = ("mlx", "mlx_lm", "transformers", "msgspec", "pydantic", "huggingface_hub", "mlx_grpc.rpc")
    program = f"import sys, mlx_grpc.client; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
