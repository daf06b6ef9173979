"""What the machine has, and its removal; Hugging Face's cache is laid out by hand, and never asked over the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_grpc.models.cache import models_dir
from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.registry import list_models, remove
from mlx_grpc.models.sources import GgufFile, HubModel, ModelSourceError, NamedSource, parse
from tests.helpers.gguf import small_gguf
from tests.helpers.hub import COMMIT, cached_on_hub


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; no network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one import in it."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    resolve(NamedSource(GgufFile(gguf)), tmp_path / "cache")
    return tmp_path / "cache"


def test_an_import_is_listed_with_its_size(cache: Path) -> None:
    """Name, place, and what it was made from."""
    (model,) = list_models(cache)
    assert (model.kind, model.path.name) == ("imported", model.name)
    assert model.source.endswith("small.gguf")
    assert model.size_bytes == sum(file.stat().st_size for file in model.path.iterdir())


def test_an_empty_machine_has_no_models(tmp_path: Path) -> None:
    """No cache folder is no error."""
    assert list_models(tmp_path / "none") == []


def test_only_models_of_the_hub_cache_are_listed(cache: Path, hub_cache: Path, tmp_path: Path) -> None:
    """A repository without safetensors is no model for MLX."""
    cached_on_hub(hub_cache, "org/tiny", list_models(cache)[0].path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no model")
    cached_on_hub(hub_cache, "org/notes", tmp_path / "notes")
    assert [model.source for model in list_models(cache) if model.kind == "hub"] == [f"org/tiny@{COMMIT}"]


def test_a_cached_hub_model_resolves_without_network(cache: Path, hub_cache: Path) -> None:
    """By its branch or its commit; the id and the revision are the hub's."""
    snapshot = cached_on_hub(hub_cache, "org/tiny", list_models(cache)[0].path)
    for revision in ("", COMMIT):
        model = resolve(NamedSource(HubModel("org/tiny", revision)))
        assert (model.model_id, model.revision, model.folder) == ("org/tiny", COMMIT, snapshot)


def test_the_name_of_an_import_is_a_source(cache: Path) -> None:
    """As the list shows it, and without the file that it was made from."""
    (listed,) = list_models(cache)
    Path(listed.source).unlink()
    model = resolve(parse(listed.name), cache)
    assert (model.model_id, model.folder) == (listed.name, listed.path)


def test_an_import_of_another_version_is_made_again_by_its_name(cache: Path) -> None:
    """From its file; and where that is not there, one line says so."""
    (listed,) = list_models(cache)
    record = listed.path / "mlx_grpc_source.json"
    record.write_text(record.read_text().replace('"import_version": ', '"import_version": -'))
    assert resolve(parse(listed.name), cache).folder == listed.path
    assert '"import_version": -' not in record.read_text()
    record.write_text(record.read_text().replace('"import_version": ', '"import_version": -'))
    Path(listed.source).unlink()
    with pytest.raises(ModelSourceError, match="another version"):
        resolve(parse(listed.name), cache)


def test_a_word_that_names_nothing_says_what_to_do(tmp_path: Path) -> None:
    """`gpt2` is no folder, no import and no Hugging Face id."""
    with pytest.raises(ModelSourceError, match="models list"):
        resolve(parse("gpt2"), tmp_path)


def test_a_hub_model_that_is_not_cached_says_what_to_do() -> None:
    """Offline, in one line."""
    with pytest.raises(ModelSourceError, match="HF_HUB_OFFLINE"):
        resolve(NamedSource(HubModel("org/none")))


def test_remove_frees_what_the_list_shows(cache: Path) -> None:
    """The import is gone, and nothing hidden stays but the lock."""
    (model,) = list_models(cache)
    assert remove(model.name, cache) == model.size_bytes
    assert list_models(cache) == []
    assert [path.suffix for path in models_dir(cache).iterdir()] == [".lock"]


def test_remove_deletes_a_hub_model(cache: Path, hub_cache: Path) -> None:
    """With the hub client's own strategy, blobs included."""
    cached_on_hub(hub_cache, "org/tiny", list_models(cache)[0].path)
    assert remove("org/tiny", cache) > 0
    assert not (hub_cache / "models--org--tiny").exists()


@pytest.mark.parametrize("name", ["../secret", "..", ".", "", "/", "../models", ".small.lock", "small\0"])
def test_no_name_leaves_the_model_folder(cache: Path, name: str) -> None:
    """A name that is not in the list is refused, and everything is still there."""
    (cache / "secret").mkdir()
    before = sorted(cache.rglob("*"))
    with pytest.raises(ModelSourceError, match="no model"):
        remove(name, cache)
    assert sorted(cache.rglob("*")) == before
