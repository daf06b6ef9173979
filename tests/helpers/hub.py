"""Hugging Face's cache, laid out by hand: nothing is asked over the network."""

from __future__ import annotations

from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached_on_hub(hub_cache: Path, repo_id: str, made_from: Path) -> Path:
    """Lays `made_from`'s files out as huggingface_hub would have."""
    repository = hub_cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "refs", repository / "blobs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in made_from.iterdir():
        blob = repository / "blobs" / file.name
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    return snapshot
