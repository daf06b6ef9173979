"""Settings: flags over the environment over the defaults."""

from __future__ import annotations

import pytest

from mlx_grpc.config import Config, ConfigError, load_config


def test_a_flag_wins_over_the_environment_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that is None was not given."""
    assert load_config(max_batch=None).max_batch == Config.model_fields["max_batch"].default
    monkeypatch.setenv("MLX_GRPC_MAX_BATCH", "3")
    assert load_config(max_batch=None).max_batch == 3
    assert load_config(max_batch=4).max_batch == 4


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `MLX_GRPC_MAX_BATCH= mlx-grpc serve` has it."""
    monkeypatch.setenv("MLX_GRPC_MAX_BATCH", "")
    assert load_config().max_batch == Config.model_fields["max_batch"].default


def test_models_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces around them are nobody's name."""
    monkeypatch.setenv("MLX_GRPC_MODEL", "a=org/one, org/two,")
    assert load_config().model == ("a=org/one", "org/two")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("grpc_port", 70_000),
        ("http_port", -1),
        ("host", ""),
        ("admin_host", "a" * 300),
        ("context_length", 0),
        ("max_queue", -1),
        ("max_queue_tokens", 0),
        ("max_batch", 0),
        ("prefill_step_tokens", 0),
        ("memory_limit_bytes", 0),
        ("memory_limit_bytes", 10**20),
        ("prefix_cache_bytes", -1),
        ("ageing_seconds", 0),
        ("max_request_bytes", 10),
        ("default_max_tokens", 10**12),
        ("drain_seconds", float("nan")),
        ("drain_seconds", -1),
        ("stall_seconds", float("inf")),
        ("slow_reader_seconds", 0),
        ("keepalive_seconds", float("inf")),
        ("keepalive_timeout_seconds", 1e-9),
        ("cors_origin", ("foo",)),
        ("cors_origin", ("https://a.b/path",)),
        ("cors_origin", ("https://a.b:70000",)),
        ("cors_origin", ("https://me@a.b",)),
        ("cors_origin", ("*", "")),
        ("log_level", "loud"),
        ("typo", 1),
    ],
)
def test_a_setting_that_cannot_be_is_named(flag: str, value: object) -> None:
    """In one line."""
    with pytest.raises(ConfigError) as caught:
        load_config(**{flag: value})
    assert str(caught.value).startswith(f"--{flag.replace('_', '-')}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BATCH", "many"),
        ("LOG_LEVEL", "loud"),
        ("INSECURE", "maybe"),
        ("CORS_ORIGIN", "*,foo"),
        ("HOST", "a" * 300),
    ],
)
def test_a_variable_that_cannot_be_is_named_as_such(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set it looks for the variable, not for a flag that was not given."""
    monkeypatch.setenv(f"MLX_GRPC_{name}", value)
    with pytest.raises(ConfigError, match=f"^MLX_GRPC_{name}: "):
        load_config()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"grpc_port": 5000, "http_port": 5000}, ("--grpc-port", "--http-port")),
        ({"grpc_port": 5000, "admin_port": 5000}, ("--grpc-port", "--admin-port")),
        ({"http_port": 11437}, ("--http-port", "--admin-port")),
    ],
)
def test_two_listeners_on_one_port(flags: dict[str, int], named: tuple[str, str]) -> None:
    """Both are named, also where one of them is a default. 0 is any port, and never the same."""
    with pytest.raises(ConfigError) as caught:
        load_config(**flags)
    assert all(flag in str(caught.value) for flag in named)
    load_config(grpc_port=0, http_port=0, admin_port=0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("*", "*"),
        ("https://Example.com", "https://example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("tauri://localhost", "tauri://localhost"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(given: str, kept: str) -> None:
    """In small letters."""
    assert load_config(cors_origin=(given,)).cors_origin == (kept,)


def test_a_log_level_may_be_in_capitals() -> None:
    """As Python's own are."""
    assert load_config(log_level="WARNING").log_level == "warning"


def test_settings_do_not_change() -> None:
    """Whoever has the Config may keep what it read from it."""
    with pytest.raises(ValueError, match="frozen"):
        load_config().max_batch = 5
