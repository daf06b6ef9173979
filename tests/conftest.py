"""What all tests share. Warnings are errors, and a hang fails: pyproject.toml says so."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests.helpers.models.kinds import cache_kind as cache_kind
from tests.helpers.models.kinds import tiny_models as tiny_models


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the long proofs at full size (make prove)")


def pytest_configure(config: pytest.Config) -> None:
    """The settings of whoever runs the tests must not reach the servers that the tests start."""
    for name in [name for name in os.environ if name.startswith("MLX_GRPC_")]:
        del os.environ[name]
    # Nor may a shell's: it lets what it runs in the background ignore Ctrl-C, and children would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The same examples in every run of `make test`, so that what passed here passes there; `make prove` looks for new
    # ones.
    settings.register_profile("test", derandomize=True, deadline=None)
    settings.register_profile("prove", deadline=None)
    settings.load_profile("prove" if config.getoption("--full") else "test")


@pytest.fixture(scope="session")
def full_size(request: pytest.FixtureRequest) -> bool:
    """True under `make prove`: a test marked `prove` then takes its full size, else its small one."""
    return bool(request.config.getoption("--full"))
