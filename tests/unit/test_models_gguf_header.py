"""GGUF files that are not what they seem are refused before MLX sees them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_grpc.models.gguf.config import check_family, model_config
from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.gguf.rope import llama3_rope_scaling
from mlx_grpc.models.sources import ModelSourceError
from tests.helpers.gguf import small_gguf


def test_metadata_and_tensors_are_read(tmp_path: Path) -> None:
    """Numbers, texts, arrays; shapes with the fastest dimension last."""
    path, _ = small_gguf(tmp_path / "a.gguf", {"blk.0.attn_k.weight": "Q8_0"})
    header = read_header(path)
    assert header.metadata["llama.block_count"] == 2
    assert header.metadata["tokenizer.ggml.merges"][0] == "h e"
    tensor = header.tensors["blk.0.attn_k.weight"]
    assert (tensor.shape, tensor.type.name, tensor.size_bytes) == ((32, 64), "Q8_0", 32 * 2 * 34)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, share: float) -> None:
    """In the magic, the metadata, the table or the data."""
    path, _ = small_gguf(tmp_path / "a.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelSourceError, match=r"cut short|not a GGUF"):
        read_header(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(place=st.integers(0, 8000), byte=st.integers(0, 255))
def test_a_damaged_header_breaks_nothing(tmp_path: Path, place: int, byte: int) -> None:
    """One wrong byte gives a header or a ModelSourceError, never anything else."""
    path, _ = small_gguf(tmp_path / "a.gguf")
    damaged = bytearray(path.read_bytes())
    damaged[place] = byte
    path.write_bytes(damaged)
    with contextlib.suppress(ModelSourceError):
        model_config(read_header(path))


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of them is meant, nobody knows."""
    path, _ = small_gguf(tmp_path / "a.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"blk.1.ffn_up", b"blk.0.ffn_up"))
    with pytest.raises(ModelSourceError, match="two tensors have the same name"):
        read_header(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With what the system says about it."""
    with pytest.raises(ModelSourceError, match=r"none\.gguf: No such file"):
        read_header(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"general__architecture": "mamba"},
            "architecture 'mamba' cannot be imported, only llama, qwen2, qwen3, gemma2",
        ),
        ({"general__architecture": 7}, "architecture '7'"),
        ({"general__architecture": None}, "no general.architecture"),
        ({"llama__expert_count": 8}, "mixture of experts"),
        ({"llama__rope__scaling__type": "yarn"}, "rope scaling 'yarn'"),
    ],
)
def test_other_families_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Only what mlx_lm's class of the family computes is imported."""
    path, _ = small_gguf(tmp_path / "a.gguf", None, **changes)
    with pytest.raises(ModelSourceError, match=said):
        check_family(read_header(path))


def test_the_config_is_the_files_shape(tmp_path: Path) -> None:
    """Floats are the short ones that were meant, ends of text are a list when there are several."""
    path, _ = small_gguf(tmp_path / "a.gguf", tokenizer__ggml__eot_token_id=1)
    config = model_config(read_header(path))
    assert (config["rms_norm_eps"], config["rope_theta"]) == (1e-5, 10_000.0)
    assert (config["head_dim"], config["num_key_value_heads"], config["tie_word_embeddings"]) == (16, 2, True)
    assert config["eos_token_id"] == [0, 1]


def test_llama_3_rope_scaling_is_found_again() -> None:
    """The divisors of Llama 3.2 (factor 32, heads of 64) give back its parameters, others give nothing."""
    factors = [1.0] * 15 + [1.0] * 17
    assert llama3_rope_scaling([2.0, *factors[1:]], 64, 500_000.0) is None
    found = llama3_rope_scaling(_llama_3_2_divisors(), 64, 500_000.0)
    assert found is not None
    assert (found["rope_type"], found["factor"]) == ("llama3", 32.0)


def _llama_3_2_divisors() -> list[float]:
    """By Hugging Face's definition: long waves divided by 32, short ones kept, those between interpolated."""
    divisors = []
    for pair in range(32):
        wavelength = 2 * 3.141592653589793 * 500_000.0 ** (2 * pair / 64)
        if wavelength < 8192 / 4:
            divisors.append(1.0)
        elif wavelength > 8192:
            divisors.append(32.0)
        else:
            smooth = (8192 / wavelength - 1) / 3
            divisors.append(1 / ((1 - smooth) / 32 + smooth))
    return divisors
