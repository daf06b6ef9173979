"""`serve` hands its flags to Config, and nothing else."""

from __future__ import annotations

import inspect

import pytest

from mlx_grpc.cli.app import main
from mlx_grpc.cli.serve import serve
from mlx_grpc.config import Config


def test_the_flags_are_the_settings() -> None:
    """A new field of Config needs its flag; None leaves the environment its say."""
    parameters = inspect.signature(serve).parameters
    assert list(parameters) == list(Config.model_fields)
    assert all(parameter.default is None for parameter in parameters.values())


def test_the_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Each number that the help names is the one that Config has."""
    assert main(["serve", "--help"]) == 0
    words = capsys.readouterr().out.split()
    for name, field in Config.model_fields.items():
        if isinstance(field.default, (int, float)) and field.default > 0:
            assert f"{field.default:g}" in [word.strip("]") for word in words] or f"{field.default}]" in words, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grpc-port", "99999"], "--grpc-port"),
        (["--grpc-port", "http"], "--grpc-port"),
        (["--max-batch", "0"], "--max-batch"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_setting_that_cannot_be_is_usage(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line that names the flag, whether typer or Config found it."""
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_environment_is_read_and_refused_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLX_GRPC_MAX_BATCH is --max-batch."""
    monkeypatch.setenv("MLX_GRPC_MAX_BATCH", "many")
    assert main(["serve"]) == 2
    assert "MLX_GRPC_MAX_BATCH" in capsys.readouterr().err
