"""How a GGUF file says that a Llama's rotations are stretched: a divisor for each pair of a head's values."""

from __future__ import annotations

import math
import struct
from typing import Any

from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.sources import ModelSourceError

ROPE_FACTORS = "rope_freqs.weight"
_MOST_FACTORS = 1 << 16


def rope_factors(header: GgufHeader) -> list[float] | None:
    """The divisors, where the file has them. Raises ModelSourceError for another type than float32, and OSError."""
    tensor = header.tensors.get(ROPE_FACTORS)
    if tensor is None:
        return None
    if tensor.type.name != "F32" or len(tensor.shape) != 1 or tensor.shape[0] > _MOST_FACTORS:
        raise ModelSourceError(
            f"{header.path}: tensor {ROPE_FACTORS!r} is {tensor.type.name} of shape {tensor.shape}, not a list of F32; "
            "convert the model again"
        )
    with header.path.open("rb") as file:
        file.seek(tensor.start_bytes)
        return list(struct.unpack(f"<{tensor.shape[0]}f", file.read(tensor.size_bytes)))


def llama3_rope_scaling(factors: list[float], head_dim: int, rope_theta: float) -> dict[str, Any] | None:
    """The Llama 3 rope scaling whose divisors, one for each pair of a head, are `factors`, or None.

    The file keeps only these divisors (`rope_freqs.weight`). All published models were made with the low and high
    factors 1 and 4 and 8192 positions, so the formula (Hugging Face's `_compute_llama3_parameters`) is tried with
    these and compared.
    """
    factor, low, high, original = max(factors), 1.0, 4.0, 8192
    if len(factors) != head_dim // 2 or not all(math.isfinite(given) and given > 0 for given in factors):
        return None
    for pair, given in enumerate(factors):
        wavelength = 2 * math.pi * rope_theta ** (2 * pair / head_dim)
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        expected = 1 / ((1 - smooth) / factor + smooth)
        if not math.isclose(given, expected, rel_tol=1e-3):
            return None
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
