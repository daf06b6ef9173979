"""What people may write after `--model`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.models.sources import (
    DefaultModel,
    GgufFile,
    HubModel,
    ImportedModel,
    ModelFolder,
    ModelSourceError,
    NamedSource,
    Source,
    parse,
)


def _no_folder(_path: Path) -> bool:
    return False


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("", DefaultModel()),
        ("  ", DefaultModel()),
        ("SmolLM2-135M-Instruct", DefaultModel()),
        ("tiny-0123456789", ImportedModel("tiny-0123456789")),
        ("mlx-community/Llama-3.2-1B-Instruct-4bit", HubModel("mlx-community/Llama-3.2-1B-Instruct-4bit")),
        ("org/name@refs/pr/1", HubModel("org/name", "refs/pr/1")),
        ("./models/a", ModelFolder(Path("models/a"))),
        ("/models/a=b", ModelFolder(Path("/models/a=b"))),
        (".", ModelFolder(Path())),
        ("files/model.GGUF", GgufFile(Path("files/model.GGUF"))),
    ],
)
def test_each_kind_of_source_is_recognised(text: str, source: Source) -> None:
    """The five sources, without an alias."""
    assert parse(text, _no_folder) == NamedSource(source)


def test_an_alias_stands_before_the_equals_sign() -> None:
    """`NAME=SOURCE`, the source read as without the name."""
    assert parse("tiny=org/name@v1", _no_folder) == NamedSource(HubModel("org/name", "v1"), "tiny")


def test_an_alias_alone_names_the_default_model() -> None:
    """`NAME=` is the default model under that name."""
    assert parse("tiny=", _no_folder) == NamedSource(DefaultModel(), "tiny")


def test_a_name_may_look_like_a_hub_id() -> None:
    """Dots and dashes too: it is what clients send."""
    named = parse("mlx-community/Qwen2.5-0.5B=./my-model", _no_folder)
    assert named == NamedSource(ModelFolder(Path("my-model")), "mlx-community/Qwen2.5-0.5B")
    assert named.model_id == "mlx-community/Qwen2.5-0.5B"


def test_a_path_with_an_equals_sign_that_exists_is_no_name() -> None:
    """`runs/lr=3` is a folder where there is one, and a name with a source where there is none."""
    assert parse("runs/lr=3", lambda path: path == Path("runs/lr=3")) == NamedSource(ModelFolder(Path("runs/lr=3")))
    assert parse("runs/lr=3", _no_folder) == NamedSource(ImportedModel("3"), "runs/lr")


def test_a_text_too_long_for_a_path_is_refused_in_one_line() -> None:
    """The file system's own error is not the user's."""
    with pytest.raises(ModelSourceError):
        parse("a/" + "b" * 5000)


def test_a_folder_that_exists_wins_over_a_hub_id(tmp_path: Path) -> None:
    """org/name is a folder where there is such a folder."""
    assert parse("org/name", lambda path: path == Path("org/name")).source == ModelFolder(Path("org/name"))
    assert parse(str(tmp_path)).source == ModelFolder(tmp_path)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell, also where the shell did not do it."""
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse("~/model.gguf").source == GgufFile(Path("/home/someone/model.gguf"))


@pytest.mark.parametrize(
    "text",
    ["a/b/c", "a/b/c=org/name", "org/=org/name", "org/..", "=org/name", "my name=org/name", "org/name@", "a\nb", "é/x"],
)
def test_what_is_no_source_is_refused_in_one_line(text: str) -> None:
    """The line shows what was written."""
    with pytest.raises(ModelSourceError) as caught:
        parse(text, _no_folder)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_at_all_breaks_the_parser(text: str) -> None:
    """Every text is a source or a ModelSourceError."""
    try:
        named = parse(text, _no_folder)
    except ModelSourceError:
        return
    assert named.alias.count("/") <= 1


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}(/[A-Za-z0-9][A-Za-z0-9._-]{0,20})?", fullmatch=True),
    st.sampled_from(["org/name", "./a", "a.gguf"]),
)
def test_an_alias_never_changes_the_source(alias: str, text: str) -> None:
    """Naming and choosing are independent."""
    assert parse(f"{alias}={text}", _no_folder) == NamedSource(parse(text, _no_folder).source, alias)
