"""Kinds of caches, as a fixture: a test that takes `cache_kind` runs once on a tiny model of each.

def test_something(cache_kind: TinyModel) -> None: ...  # on all of them

@pytest.mark.parametrize("cache_kind", ONE_OF_EACH, indirect=True)  # one model a kind: half as long
@pytest.mark.parametrize("cache_kind", of_kinds("rotating", "list"), indirect=True)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

KINDS: dict[str, tuple[str, ...]] = {
    "plain": ("llama",),
    "grouped_query": ("qwen3",),
    "multi_query": ("gemma",),
    "mla": ("deepseek_v3", "mistral4"),
    "rotating": ("gemma3_text", "gpt_oss"),
    "recurrent": ("mamba", "rwkv7"),
    "hybrid": ("qwen3_5", "lfm2", "jamba"),
    "list": ("falcon_h1", "deepseek_v32"),
}
"""Models of `catalog.MODELS` by what their rows keep in the device."""


def of_kinds(*kinds: str) -> list[str]:
    """The fixture's parameters for these kinds: `kind-model`."""
    return [f"{kind}-{name}" for kind in kinds for name in KINDS[kind]]


ALL = of_kinds(*KINDS)
ONE_OF_EACH = [of_kinds(kind)[0] for kind in KINDS]


class TinyModel(NamedTuple):
    """A model's folder, as `write_model` makes it. Any server can load it; all have the same tokenizer."""

    kind: str
    name: str
    folder: Path


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by name, each written when first asked for. Every process of a test run has its own."""
    from tests.helpers.models.folder import write_model  # imports MLX, which most tests do without

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = write_model(name, tmp_path_factory.mktemp("models") / name)
        return made[name]

    return folder


@pytest.fixture(scope="session", params=ALL)
def cache_kind(request: pytest.FixtureRequest, tiny_models: Callable[[str], Path]) -> TinyModel:
    """A tiny model of each kind of cache."""
    kind, _, name = request.param.partition("-")
    return TinyModel(kind, name, tiny_models(name))
