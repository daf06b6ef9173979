"""A caller's model names reach no path, and code that a model brings along does not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc import testing
from mlx_grpc.errors import InvalidField
from mlx_grpc.models.sources import HubModel, ModelSourceError, NamedSource
from mlx_grpc.service.hosting import sources
from mlx_grpc.service.intake.tokenizer import load_tokenizer
from mlx_grpc.v1 import model_service_pb2
from tests.helpers.auth import http_call
from tests.helpers.llama import make_llama
from tests.helpers.rpc import Request, in_loop, refused, serving

EVIL = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from mlx_lm.models.llama import *
from transformers import PreTrainedTokenizerFast as EvilTokenizer
from transformers import LlamaConfig as EvilConfig
"""
PATHS = [
    "../x", "..", ".", "./x", "/etc", "/etc/passwd", "~", "~/x", "~root/x", "x/../../etc", "org/../x", "a/b/c",
    "org/..", "org/name/../../x", "\\\\host\\share", "C:\\x", "file:///etc", "https://example.com/x", "x.gguf",
    "../x.gguf", "/x.gguf", "name=/etc", "name=org/model", "=/etc", "script:{}", "x=script:{}", "a\0b", "a\nb",
    "org/name@../../x", "org/name@/etc", "org/name@a//b", "org/name@a/", "models--org--name", "",
]  # fmt: skip


@in_loop
async def test_a_path_is_no_model_to_a_caller() -> None:
    """LoadModel takes ids that are known, or of a model hub; the server goes on, and knows nothing new."""
    async with serving(allow_model_management=True) as (server, api):
        for name in PATHS:
            refusal = await refused(api.models.LoadModel(model_service_pb2.LoadModelRequest(model=name)))
            assert (refusal.reason, refusal.field) == ("INVALID_FIELD", "model"), name
        assert [host.source.id for host in server.catalog.hosts] == ["scripted"]


def test_a_path_is_no_model_to_an_operator_over_http() -> None:
    """The admin port is no way to paths either: those are given at start."""
    with testing.run() as server:
        for name in PATHS:
            answer = http_call(server.admin_url, "/admin/models/load", method="POST", body={"model": name})
            assert (answer.status, answer.json["error"]["field"]) == (400, "model"), name


@pytest.mark.parametrize("kind", ["folder", "symlink"])
def test_a_folder_beside_the_server_is_not_what_a_caller_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """`org/name` is the hub's, though a folder of that spelling lies where the server was started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere" / "name").mkdir(parents=True)
    (tmp_path / "org").symlink_to("elsewhere") if kind == "symlink" else (tmp_path / "org/name").mkdir(parents=True)
    asked: list[NamedSource] = []

    def resolve(named: NamedSource, *_: Any) -> Any:
        asked.append(named)
        raise ModelSourceError("no network in tests")

    monkeypatch.setattr(sources, "resolve", resolve)
    with pytest.raises(ModelSourceError):
        sources.callers_source("org/name", None).locate()
    assert asked == [NamedSource(HubModel("org/name"))]


def test_a_script_is_not_what_a_caller_names() -> None:
    """The scripted model is for tests, which start it themselves."""
    with pytest.raises(InvalidField):
        sources.callers_source("x=script:{}", None)


class Marker:
    """A file that the malicious model's code makes when it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @property
    def made(self) -> bool:
        return self._path.exists()


@pytest.fixture
def marker(tmp_path: Path) -> Marker:
    return Marker(tmp_path / "marker")


def malicious(folder: Path, marker: Marker, *, network: bool = False, tokenizer: bool = False) -> Path:
    """A good model with a file of Python that its configuration asks for, as the network's or the tokenizer's."""
    config: dict[str, Any] = {"model_file": "evil.py"} if network else {}
    make_llama(folder, **config)
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    classes = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Model"}
    _change(folder / "config.json", auto_map=classes)
    if tokenizer:
        pair = ["evil.EvilTokenizer", "evil.EvilTokenizer"]
        _change(folder / "config.json", auto_map={**classes, "AutoTokenizer": pair})
        _change(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": pair})
    return folder


def _change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


async def try_to_serve(folder: Path, **settings: Any) -> str:
    """Serve the folder and generate; what was wrong, or "" when nothing was."""
    try:
        async with serving(model=(f"evil={folder}",), engine="process", **settings) as (_, api):
            await api.answer(Request(prompt="The capital", stop={"max_tokens": 2}))
    except ModelSourceError as error:
        return str(error)
    return ""


@in_loop
async def test_a_models_code_does_not_run(tmp_path: Path, marker: Marker) -> None:
    """A model that needs its code is refused in one line."""
    why = await try_to_serve(malicious(tmp_path / "model", marker, network=True))
    assert "evil.py" in why
    assert "\n" not in why
    assert not marker.made


@in_loop
async def test_a_models_code_runs_when_the_operator_says_so(tmp_path: Path, marker: Marker) -> None:
    """With --trust-remote-code, in the engine's process: so the test above looks at the right thing."""
    assert await try_to_serve(malicious(tmp_path / "model", marker, network=True), trust_remote_code=True) == ""
    assert marker.made


@pytest.mark.parametrize("trusted", [False, True])
@in_loop
async def test_a_tokenizers_code_never_runs(tmp_path: Path, marker: Marker, trusted: bool) -> None:
    """Tokenizers live in the server's own process: not even --trust-remote-code lets their code in."""
    await try_to_serve(malicious(tmp_path / "model", marker, tokenizer=True), trust_remote_code=trusted)
    assert not marker.made


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch ' + marker) }}",
        "{{ self.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_a_chat_template_reaches_nothing(tmp_path: Path, marker: Marker, template: str) -> None:
    """It runs in jinja's sandbox, in a process of its own."""
    folder = make_llama(tmp_path / "model")
    _change(folder / "tokenizer_config.json", chat_template=template)
    chat_template = load_tokenizer(str(folder)).chat_template
    assert chat_template is not None
    written = chat_template.write([("user", "hi")], json.dumps({"marker": str(marker)}), continued=False)
    text = f"{written.text} {written.error}"
    assert not written.stopped
    assert "root:" not in text
    assert "<class" not in text
    assert not marker.made
