"""How a GGUF file says that rotations are stretched: by a kind and a factor, or by tensors of divisors, one for each
pair of a head's values."""

from __future__ import annotations

import math
import struct
from typing import Any

from mlx_grpc.models.gguf.families import INSTEAD, Family
from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.gguf.metadata import count, number, short_float
from mlx_grpc.models.sources import ModelSourceError

# By the kind of scaling: the tensors that have its divisors. None of them is a weight.
ROPE_TENSORS = {
    "llama3": ("rope_freqs.weight",),
    "longrope": ("rope_factors_long.weight", "rope_factors_short.weight"),
}
_MOST_FACTORS = 1 << 16
_CLOSE = 1e-3
"""How far a number may be from what the formula gives, as its share: files have float32."""


def check_rope(header: GgufHeader, family: Family) -> None:
    """Raises ModelSourceError for a kind of scaling that the family's class does not compute."""
    prefix = f"{family.architecture}.rope.scaling"
    kind = header.metadata.get(f"{prefix}.type", "none")
    if kind == "llama3" or kind not in ("none", *family.rope_scalings):  # llama3 is a tensor, no word of the metadata
        raise ModelSourceError(f"{header.path}: rope scaling {str(kind)[:100]!r} cannot be imported; {INSTEAD}")
    if kind == "none" and header.metadata.get(f"{prefix}.factor", 1.0) not in (0.0, 1.0):
        raise ModelSourceError(
            f"{header.path}: {prefix}.factor is there without {prefix}.type; convert the model again"
        )


def rope_entries(header: GgufHeader, family: Family, config: dict[str, Any]) -> dict[str, Any]:
    """The entries of config.json about stretched rotations. Raises ModelSourceError for divisors that the family's
    class would not use so, and OSError."""
    check_rope(header, family)
    if "llama3" in family.rope_scalings and (factors := _floats(header, *ROPE_TENSORS["llama3"])):
        scaling = llama3_rope_scaling(factors, config["head_dim"], config["rope_theta"])
        if scaling is None:
            raise ModelSourceError(f"{header.path}: an unknown kind of rope scaling; {INSTEAD}")
        return {"rope_scaling": scaling}
    if "longrope" in family.rope_scalings:
        return _longrope(header, family, config)
    if header.metadata.get(f"{family.architecture}.rope.scaling.type") == "linear":
        factor = number(header, f"{family.architecture}.rope.scaling.factor", 1.0)
        return {"rope_scaling": {"type": "linear", "factor": factor}}
    return {}


def _longrope(header: GgufHeader, family: Family, config: dict[str, Any]) -> dict[str, Any]:
    """Phi-3's: divisors for long and short contexts. llama.cpp writes the factor that the attention is scaled by, and
    mlx_lm computes it: they must be the same."""
    prefix = f"{family.architecture}.rope.scaling"
    context = config["max_position_embeddings"]
    original = count(header, f"{prefix}.original_context_length", context)
    entries: dict[str, Any] = {"original_max_position_embeddings": original}
    factors = [_floats(header, name) for name in ROPE_TENSORS["longrope"]]
    if factors == [None, None]:
        if header.metadata.get(f"{prefix}.type") == "longrope":
            raise ModelSourceError(f"{header.path}: longrope without its tensors of factors; convert the model again")
        return entries
    pairs = int(config["head_dim"] * config["partial_rotary_factor"]) // 2
    if any(found is None or len(found) != pairs for found in factors):
        raise ModelSourceError(
            f"{header.path}: {' and '.join(ROPE_TENSORS['longrope'])} must have {pairs} numbers each; "
            "convert the model again"
        )
    stretch = context / original
    expected = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 and original > 1 else 1.0
    if not math.isclose(number(header, f"{prefix}.attn_factor", expected), expected, rel_tol=_CLOSE):
        raise ModelSourceError(f"{header.path}: an unknown kind of rope scaling; {INSTEAD}")
    long, short = ([short_float(factor) for factor in found] for found in factors if found)
    return {**entries, "rope_scaling": {"type": "longrope", "long_factor": long, "short_factor": short}}


def _floats(header: GgufHeader, name: str) -> list[float] | None:
    """The numbers of a tensor, or None if the file does not have it. Raises ModelSourceError for another type than
    float32 and for numbers that are not positive, and OSError."""
    tensor = header.tensors.get(name)
    if tensor is None:
        return None
    if tensor.type.name != "F32" or len(tensor.shape) != 1 or tensor.shape[0] > _MOST_FACTORS:
        raise ModelSourceError(
            f"{header.path}: tensor {name!r} is {tensor.type.name} of shape {tensor.shape}, not a list of F32; "
            "convert the model again"
        )
    with header.path.open("rb") as file:
        file.seek(tensor.start_bytes)
        numbers = list(struct.unpack(f"<{tensor.shape[0]}f", file.read(tensor.size_bytes)))
    if not all(math.isfinite(given) and given > 0 for given in numbers):
        raise ModelSourceError(f"{header.path}: tensor {name!r} has numbers that are not positive; download it again")
    return numbers


def llama3_rope_scaling(factors: list[float], head_dim: int, rope_theta: float) -> dict[str, Any] | None:
    """The Llama 3 rope scaling whose divisors, one for each pair of a head, are `factors`, or None.

    The file keeps only these divisors (`rope_freqs.weight`). All published models were made with the low and high
    factors 1 and 4 and 8192 positions, so the formula (Hugging Face's `_compute_llama3_parameters`) is tried with
    these and compared.
    """
    factor, low, high, original = max(factors), 1.0, 4.0, 8192
    if len(factors) != head_dim // 2:
        return None
    for pair, given in enumerate(factors):
        wavelength = 2 * math.pi * rope_theta ** (2 * pair / head_dim)
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        expected = 1 / ((1 - smooth) / factor + smooth)
        if not math.isclose(given, expected, rel_tol=_CLOSE):
            return None
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
