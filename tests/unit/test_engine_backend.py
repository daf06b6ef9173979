"""What MLX is told through its environment."""

from __future__ import annotations

import os

import pytest

from mlx_grpc.engine import backend


def test_what_the_operator_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our values are for those who said nothing."""
    environment = {"MLX_USE_CUDA_GRAPHS": "1"}
    monkeypatch.setattr(os, "environ", environment)
    backend.set_defaults()
    assert environment == {**backend.ENVIRONMENT, "MLX_USE_CUDA_GRAPHS": "1"}
