"""Model folders that try to fill the server's memory, or to end it: that model has failed, and all else goes on."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.service.intake.libraries import import_libraries
from mlx_grpc.v1 import model_service_pb2
from tests.helpers.llama import make_llama
from tests.helpers.rpc import Request, connected, in_loop, refused
from tests.hostile.helpers.files import Break, change, hosting, resident_bytes, write_sparse

MEMORY_BYTES = 150_000_000
GAP_SECONDS = 1.0
"""On a loaded machine; most of it is the interpreter's lock while other threads parse."""
HUGE = 100 << 20


def config(**keys: Any) -> Break:
    return lambda folder: change(folder / "config.json", **keys)


def huge(name: str) -> Break:
    return lambda folder: write_sparse(folder / name, HUGE)


def pipe(name: str) -> Break:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def text(name: str, content: str) -> Break:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


def index(*names: str) -> Break:
    return text(
        "model.safetensors.index.json", json.dumps({"weight_map": {str(n): name for n, name in enumerate(names)}})
    )


def header(length: int, **tensor: Any) -> Break:
    def write(folder: Path) -> None:
        said = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | tensor}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", length or len(said)) + said + bytes(16))

    return write


def outside(folder: Path) -> None:
    other = make_llama(folder.parent / "private")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(other / "model.safetensors")


def zeros(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


def tokenizer(**model: Any) -> Break:
    def write(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        content["model"] |= model
        file.write_text(json.dumps(content))

    return write


def pre_tokenizer(pattern: str) -> Break:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return lambda folder: change(folder / "tokenizer.json", pre_tokenizer=split)


ATTACKS: dict[str, tuple[Break, str]] = {
    "context 2**40": (config(max_position_embeddings=2**40), "max_position_embeddings"),
    "10**9 layers": (config(num_hidden_layers=10**9), "num_hidden_layers"),
    "4000 layers": (config(num_hidden_layers=4000), "num_hidden_layers"),
    "negative layers": (config(num_hidden_layers=-3), "num_hidden_layers"),
    "layers as a text": (config(num_hidden_layers="2"), "num_hidden_layers"),
    "wide": (config(hidden_size=2**20), "hidden_size"),
    "vocabulary": (config(vocab_size=2**24), "vocab_size"),
    "heads": (config(num_key_value_heads=3), "num_key_value_heads"),
    "no heads": (config(num_attention_heads=0), "num_attention_heads"),
    "nan": (config(rms_norm_eps=float("nan")), "rms_norm_eps"),
    "a million ends": (config(eos_token_id=list(range(10**6))), "config.json"),
    "2000 ends": (config(eos_token_id=list(range(2000))), "eos_token_id"),
    "generation ends": (text("generation_config.json", json.dumps({"eos_token_id": [2**40]})), "eos_token_id"),
    "long list": (config(layer_types=["full_attention"] * 10**5), "layer_types"),
    "deep": (config(a=json.loads("[" * 300 + "]" * 300)), "deep"),
    "deeper": (text("config.json", '{"a":' * 50_000 + "1" + "}" * 50_000), "config.json"),
    "half a pair": (config(model_type="\ud800"), "model_type"),
    "type": (config(model_type="../../x"), "model_type"),
    "huge config": (huge("config.json"), "config.json has"),
    "huge generation": (huge("generation_config.json"), "generation_config.json has"),
    "huge index": (huge("model.safetensors.index.json"), "index.json has"),
    "pipe": (pipe("config.json"), "config.json is not an ordinary file"),
    "weights pipe": (pipe("model.safetensors"), "model.safetensors is not an ordinary file"),
    "index up": (index("../private/model.safetensors"), "weight_map names"),
    "index root": (index("/etc/passwd"), "weight_map names"),
    "index long": (index("x" * 5000), "weight_map names"),
    "link out": (outside, "leads out of"),
    "link to a device": (zeros, "leads out of"),
    "header 2**60": (header(2**60), "damaged"),
    "shape 2**60": (header(0, shape=[2**60]), "damaged"),
    "shape overflow": (header(0, shape=[2**32, 2**32, 4]), "damaged"),
    "offsets": (header(0, data_offsets=[0, 2**40]), "damaged"),
    "code": (config(auto_map={"AutoConfig": "evil.Config"}), "--trust-remote-code"),
    "code in the text part": (config(text_config={"auto_map": {"AutoConfig": "evil.Config"}}), "--trust-remote-code"),
    "file of code": (config(model_file="evil.py"), "--trust-remote-code"),
    "tokenizer code": (
        lambda folder: change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
        "--trust-remote-code",
    ),
}  # fmt: skip
TOKENIZERS: dict[str, tuple[Break, str]] = {
    "huge tokenizer": (huge("tokenizer.json"), "tokenizer.json has"),
    "huge settings": (huge("tokenizer_config.json"), "tokenizer_config.json has"),
    "id 10**9": (tokenizer(vocab={"a": 0, "b": 10**9}, merges=[]), "tokenizer.json"),
    "id 2**40": (tokenizer(vocab={"a": 0, "b": 2**40}, merges=[]), "tokenizer.json"),
    "merge of nothing": (tokenizer(merges=["zz yy"]), "tokenizer.json"),
    "deep normalizer": (
        text("tokenizer.json", '{"normalizer":' + '{"type":"Sequence","normalizers":[' * 20_000),
        "tokenizer.json",
    ),
    "regex": (pre_tokenizer("(a+)+$|((a|aa)+)+b"), "tokenizer.json"),
    "no json": (text("tokenizer.json", "{"), "tokenizer.json"),
    "panic": (
        lambda folder: change(
            folder / "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
        ),
        "charsmap",
    ),
    "growing text": (
        lambda folder: change(
            folder / "tokenizer.json",
            normalizer={
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"String": "q"}, "content": "qq"}] * 40,
            },
        ),
        "tokenizer.json",
    ),
    "no tokenizer.json": (
        lambda folder: (folder / "tokenizer.json").rename(folder / "tokenizer.model"),
        "tokenizer cannot be used",
    ),
}  # fmt: skip


async def check(tmp_path: Path, attacks: dict[str, tuple[Break, str]]) -> None:
    """All at once, in one server."""
    import_libraries()
    folders = {}
    for number, (attack, _) in enumerate(attacks.values()):
        folders[f"m{number}"] = make_llama(tmp_path / f"{number}" / "model")
        attack(folders[f"m{number}"])
    before_bytes = resident_bytes(os.getpid())
    async with hosting(**folders) as (server, loop):
        for (name, (_, said)), alias in zip(attacks.items(), folders, strict=True):
            life = server.catalog.get(alias).life
            assert life.state is ModelState.FAILED, name
            assert said in life.error, (name, life.error)
            assert "\n" not in life.error, name
            assert len(life.error) <= 1000, name
            assert "a bug of this server" not in life.error, name
        async with connected(server.address) as api:
            listed = (await api.models.ListModels(model_service_pb2.ListModelsRequest())).models
            assert len(listed) == len(attacks) + 1
            assert await api.text("hello")
        assert loop.longest_gap_seconds < GAP_SECONDS
        assert resident_bytes(os.getpid()) - before_bytes < MEMORY_BYTES


@pytest.mark.timeout(300)
@in_loop
async def test_a_folder_that_lies_is_a_model_that_has_failed(tmp_path: Path) -> None:
    """The file and the field are named in one line, ListModels works, and so do other models."""
    await check(tmp_path, ATTACKS)


@pytest.mark.timeout(300)
@in_loop
async def test_a_tokenizer_that_lies_is_a_model_that_has_failed(tmp_path: Path) -> None:
    """It is tried in a process of its own before the server reads it."""
    await check(tmp_path, TOKENIZERS)


@in_loop
async def test_a_tokenizer_that_panics_for_one_text_fails_that_call(tmp_path: Path) -> None:
    """A text that its trial did not have. The server, the model and its other calls go on."""
    folder = make_llama(tmp_path / "model")
    pre_tokenizer("(([pqz]|[pqz][pqz])+)+k|[^p]")(folder)
    async with hosting(model=folder) as (server, _), connected(server.address) as api:
        assert server.catalog.get("model").life.state is ModelState.READY, server.catalog.get("model").life.error
        for prompt in ("pqz" * 20, "pqz" * 2000):
            call = api.inference.Generate(Request(model="model", prompt=prompt, stop={"max_tokens": 1}))
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "MODEL_FAILED")
        await api.answer(Request(model="model", prompt="abc", stop={"max_tokens": 1}))


@in_loop
async def test_sampling_that_means_nothing_is_passed_over(tmp_path: Path) -> None:
    """A model with such a generation_config.json serves, with the settings that requests without any have."""
    folder = make_llama(tmp_path / "model")
    nonsense = {
        "do_sample": True,
        "temperature": float("nan"),
        "top_k": -5,
        "top_p": 1e308,
        "min_p": "x",
        "eos_token_id": 10**6,
    }
    change(folder / "generation_config.json", **nonsense)
    async with hosting(model=folder) as (server, _):
        host = server.catalog.get("model")
        assert host.life.state is ModelState.READY, host.life.error
        assert (host.defaults.temperature, host.defaults.top_k, host.defaults.top_p) == (1.0, 0, 1.0)
        assert host.info is not None
        assert host.info.eos_ids == []
