"""The GGUF import, in real child processes: exact weights, and never half a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_grpc.models.cache import models_dir
from mlx_grpc.models.fetch import LocalModel, resolve
from mlx_grpc.models.gguf.child import IMPORT_VERSION
from mlx_grpc.models.progress import SilentProgress
from mlx_grpc.models.sources import GgufFile, ModelSourceError, NamedSource
from mlx_grpc.service.intake.tokenizer import HuggingFaceTokenizer
from tests.helpers.gguf import byte_alphabet, gguf_tensors, small_gguf, small_metadata, small_weights, write_gguf
from tests.helpers.gguf_blocks import Floats

Q = "blk.0.attn_q.weight"
RECORD = "mlx_grpc_source.json"
TRY_IT = """
import os, resource, signal, sys
from pathlib import Path
from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.progress import SilentProgress
from mlx_grpc.models.sources import GgufFile, ModelSourceError, NamedSource
class DieAtFirst(SilentProgress):
    def update(self, label, done, total):
        os.kill(os.getpid(), signal.SIGKILL)
how, gguf, cache = sys.argv[1:]
if how == "small-files":
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    model = resolve(NamedSource(GgufFile(Path(gguf))), Path(cache), DieAtFirst() if how == "die" else None)
except ModelSourceError as error:
    sys.exit(f"mlx-grpc: {error}")
print(model.folder)
"""


class Counting(SilentProgress):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self, label: str, done: int, total: int) -> None:
        self.updates += 1


def _resolve(gguf: Path, cache: Path, alias: str = "") -> LocalModel:
    return resolve(NamedSource(GgufFile(gguf), alias), cache)


def _elsewhere(how: str, gguf: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRY_IT, how, str(gguf), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _visible(cache: Path) -> list[str]:
    return sorted(path.name for path in models_dir(cache).iterdir() if not path.name.startswith("."))


def _hidden_folders(cache: Path) -> list[Path]:
    return [path for path in models_dir(cache).iterdir() if path.name.startswith(".") and path.is_dir()]


def _loaded(folder: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(folder / "model.safetensors"))
    assert isinstance(loaded, dict)
    return loaded


def _equal(array: mx.array, expected: Floats) -> bool:
    return np.array_equal(np.array(array.astype(mx.float32)), expected)


def test_unquantised_weights_come_out_exactly(tmp_path: Path) -> None:
    """Names are MLX's, the order of q and k is undone for query and key heads alike, and no value changes."""
    gguf, expected = small_gguf(tmp_path / "small.gguf")
    weights = _loaded(_resolve(gguf, tmp_path / "cache").folder)
    assert weights.keys() == expected.keys()
    assert all(_equal(weights[name], expected[name]) for name in expected)


def test_packed_weights_are_unpermuted_with_their_scales(tmp_path: Path) -> None:
    """Q4_0 and Q8_0 stay packed, and give the exact numbers again."""
    types = {name: "Q4_0" for name, array in gguf_tensors(small_weights(263)).items() if array.ndim == 2}
    types |= {"token_embd.weight": "Q8_0", "blk.1.attn_k.weight": "Q8_0"}
    gguf, expected = small_gguf(tmp_path / "small.gguf", types)
    model = _resolve(gguf, tmp_path / "cache")
    weights = _loaded(model.folder)
    quantization = json.loads((model.folder / "config.json").read_text("utf-8"))["quantization"]
    assert quantization.pop("group_size") == 32
    assert quantization.pop("bits") == 4
    eight = {"group_size": 32, "bits": 8}
    assert quantization == {"model.embed_tokens": eight, "model.layers.1.self_attn.k_proj": eight}
    for name in [name for name in expected if expected[name].ndim == 2]:
        layer = name.removesuffix(".weight")
        bits = quantization.get(layer, {"bits": 4})["bits"]
        packed = weights[name], weights[f"{layer}.scales"], weights[f"{layer}.biases"]
        assert _equal(mx.dequantize(*packed, group_size=32, bits=bits), expected[name]), name


def test_an_untied_output_and_biases_are_kept(tmp_path: Path) -> None:
    """A model with an output matrix of its own is not tied."""
    metadata = small_metadata()
    weights = small_weights(len(metadata["tokenizer.ggml.tokens"]))
    tensors = {**gguf_tensors(weights), "output.weight": weights["model.embed_tokens.weight"] + 1}
    model = _resolve(write_gguf(tmp_path / "untied.gguf", metadata, tensors), tmp_path / "cache")
    assert json.loads((model.folder / "config.json").read_text("utf-8"))["tie_word_embeddings"] is False
    assert _equal(_loaded(model.folder)["lm_head.weight"], tensors["output.weight"])


def test_attention_biases_are_kept_in_the_order_of_their_rows(tmp_path: Path) -> None:
    """Those of q and k were interleaved like their weights."""
    metadata = small_metadata()
    weights = small_weights(len(metadata["tokenizer.ggml.tokens"]))
    for name in [name for name in weights if ".self_attn." in name]:
        rows = len(weights[name])
        weights[name.replace(".weight", ".bias")] = (np.arange(rows) / 64).astype(np.float32)
    model = _resolve(write_gguf(tmp_path / "biased.gguf", metadata, gguf_tensors(weights)), tmp_path / "cache")
    found = _loaded(model.folder)
    assert found.keys() == weights.keys()
    assert all(_equal(found[name], weights[name]) for name in weights)
    assert json.loads((model.folder / "config.json").read_text("utf-8"))["attention_bias"] is True


def test_a_quantised_norm_is_refused(tmp_path: Path) -> None:
    """mlx_lm could not load it."""
    gguf, _ = small_gguf(tmp_path / "small.gguf", {"blk.0.ffn_norm.weight": "Q8_0"})
    with pytest.raises(ModelSourceError, match=r"'blk\.0\.ffn_norm\.weight' is one row of type Q8_0"):
        _resolve(gguf, tmp_path / "cache")


def test_a_second_resolve_imports_nothing(tmp_path: Path) -> None:
    """The cached folder is taken as it is; the alias names the model."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    first, told = _resolve(gguf, tmp_path / "cache"), Counting()
    second = resolve(NamedSource(GgufFile(gguf), "tiny"), tmp_path / "cache", told)
    assert (second.folder, second.model_id, told.updates) == (first.folder, "tiny", 0)
    assert first.model_id == "small"


def test_a_changed_file_is_imported_again(tmp_path: Path) -> None:
    """Another file at the same path is another model."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    first = _resolve(gguf, tmp_path / "cache")
    small_gguf(gguf, llama__context_length=64)
    second = _resolve(gguf, tmp_path / "cache")
    assert (first.facts.context_length, second.facts.context_length) == (128, 64)
    assert first.folder != second.folder


def test_a_folder_of_an_older_import_is_made_again(tmp_path: Path) -> None:
    """It may hold weights that an older version decoded wrongly."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    folder = _resolve(gguf, tmp_path / "cache").folder
    record = json.loads((folder / RECORD).read_text("utf-8"))
    (folder / RECORD).write_text(json.dumps(record | {"import_version": IMPORT_VERSION - 1}), "utf-8")
    (folder / "model.safetensors").write_bytes(b"wrong")
    assert _loaded(_resolve(gguf, tmp_path / "cache").folder)
    assert json.loads((folder / RECORD).read_text("utf-8")) == record


def test_a_turn_ends_where_the_metadata_forget_to_say_so(tmp_path: Path) -> None:
    """The server's tokenizer ends turns at `<|im_end|>`, though the file names only the end of a text."""
    tokens = ["<|end_of_text|>", "<|start|>", *byte_alphabet(), "<|im_end|>", "he"]
    kinds = [3, 3, *[1] * 256, 3, 1]
    vocabulary = {
        "tokenizer__ggml__tokens": tokens,
        "tokenizer__ggml__token_type": kinds,
        "tokenizer__ggml__merges": ["h e"],
    }
    gguf, _ = small_gguf(tmp_path / "small.gguf", None, **vocabulary)
    tokenizer = HuggingFaceTokenizer(_resolve(gguf, tmp_path / "cache").folder)
    assert tokenizer.eos_ids == (0, 258)


def test_a_killed_import_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """`kill -9` in the middle: no model there; the next attempt clears the rest and succeeds."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    killed = _elsewhere("die", gguf, tmp_path / "cache")
    killed.communicate()
    assert killed.returncode == -9
    assert _visible(tmp_path / "cache") == []
    assert len(_hidden_folders(tmp_path / "cache")) == 1
    model = _resolve(gguf, tmp_path / "cache")
    assert _visible(tmp_path / "cache") == [model.folder.name]
    assert _hidden_folders(tmp_path / "cache") == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """Files may grow to 64 KiB only: the weights do not fit."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    refused = _elsewhere("small-files", gguf, tmp_path / "cache")
    _, said = refused.communicate()
    assert refused.returncode == 1
    assert said.count("\n") == 1
    assert "free" in said
    assert _visible(tmp_path / "cache") == []
    assert _hidden_folders(tmp_path / "cache") == []


def test_two_processes_at_once_make_one_model(tmp_path: Path) -> None:
    """Both succeed, with the same whole folder."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    both = [_elsewhere("", gguf, tmp_path / "cache") for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert len(_visible(tmp_path / "cache")) == 1
    assert _hidden_folders(tmp_path / "cache") == []


def test_a_tensor_that_no_llama_has_is_refused(tmp_path: Path) -> None:
    """The refusal comes from the child, in one line, and nothing is left."""
    metadata = small_metadata()
    tensors = gguf_tensors(small_weights(len(metadata["tokenizer.ggml.tokens"])))
    tensors["blk.0.ffn_gate_inp.weight"] = tensors[Q]
    gguf = write_gguf(tmp_path / "odd.gguf", metadata, tensors)
    with pytest.raises(ModelSourceError, match=r"ffn_gate_inp\.weight"):
        _resolve(gguf, tmp_path / "cache")
    assert _visible(tmp_path / "cache") == []
    assert _hidden_folders(tmp_path / "cache") == []


def test_a_truncated_file_starts_no_import(tmp_path: Path) -> None:
    """The parent sees it in the header; MLX never maps the file."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    gguf.write_bytes(gguf.read_bytes()[:-64])
    with pytest.raises(ModelSourceError, match="cut short"):
        _resolve(gguf, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_file_in_place_of_the_cache_is_one_line(tmp_path: Path) -> None:
    """What the system says about the cache folder is told, with what to do."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(ModelSourceError, match="cannot store the model in"):
        _resolve(gguf, tmp_path / "cache")


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    """A merge whose result is no token would stop every load later."""
    gguf, _ = small_gguf(tmp_path / "small.gguf", tokenizer__ggml__merges=["h q"])
    with pytest.raises(ModelSourceError, match="tokenizer is damaged"):
        _resolve(gguf, tmp_path / "cache")
    assert _visible(tmp_path / "cache") == []


def test_metadata_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    """The child's surprise is the parent's one line."""
    metadata = small_metadata(tokenizer__ggml__merges=7)
    gguf = write_gguf(tmp_path / "small.gguf", metadata, gguf_tensors(small_weights(263)))
    with pytest.raises(ModelSourceError, match="could not be imported"):
        _resolve(gguf, tmp_path / "cache")
