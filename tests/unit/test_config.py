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
    ("flags", "name"),
    [({"grpc_port": 70000}, "--grpc-port"), ({"max_batch": 0}, "--max-batch"), ({"typo": 1}, "--typo")],
)
def test_a_setting_that_cannot_be_is_named(flags: dict[str, int], name: str) -> None:
    """In one line."""
    with pytest.raises(ConfigError, match=name) as caught:
        load_config(**flags)
    assert "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    """Whoever has the Config may keep what it read from it."""
    with pytest.raises(ValueError, match="frozen"):
        load_config().max_batch = 5
