"""SmolLM2-1.7B's shape with random bfloat16 weights: the model of the GPU's figures.

python -m tests.benchmarks.gpu.model FOLDER --tokenizer FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

VOCAB_SIZE = 49152
END_TOKEN = "<reponame>"
"""A token that random weights say once in 49,152 times, so that an answer has as many tokens as were asked for."""
CONFIG = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 8192,
    "num_attention_heads": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-5, "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 8192, "rope_theta": 130000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip


def random_prompts(count: int, tokens: int, seed: int) -> list[list[int]]:
    """Different random tokens for each, so that no prefix cache helps."""
    dice = random.Random(f"{count} {seed}")
    return [[dice.randrange(20, VOCAB_SIZE) for _ in range(tokens)] for _ in range(count)]


def make_folder(folder: Path, tokenizer: Path) -> None:
    """Weights of the right shape and sizes; the tokenizer of another folder. Needs the GPU's memory meanwhile."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.models import llama

    model = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    mx.random.seed(0)
    weights = tree_map(lambda array: (mx.random.normal(array.shape) * 0.02).astype(mx.bfloat16), model.parameters())
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(weights)), metadata={"format": "mlx"})
    for file in [*tokenizer.glob("tokenizer*"), *tokenizer.glob("*.jinja")]:
        shutil.copy(file, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    tokens = {one["content"]: one["id"] for one in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": END_TOKEN}))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"eos_token_id": tokens[END_TOKEN]}))


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a model folder to take the tokenizer from")
    arguments = parser.parse_args()
    make_folder(arguments.folder, arguments.tokenizer)


if __name__ == "__main__":
    main()
