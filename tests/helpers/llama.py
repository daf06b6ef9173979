"""A two-layer Llama with random weights, and a small tokenizer: a real model folder, made by the test in a
second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = (
    "The capital of France is Paris. A quick brown fox jumps over the lazy dog, 0123456789 times; and what "
    "is it that makes the sun go down, the moon come up, and the stars shine over all the seas? "
    "Größe, naïve, 東京, здравствуй, 🙂."
)
BOS, EOS = "<|start|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
VOCAB_SIZE = 320
CONTEXT_LENGTH = 512


def make_llama(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write the model into `folder`, and return that. `config` changes or adds keys of config.json. The same
    seed gives the same weights, float32, spread wide enough for greedy decoding to have no ties. With another
    `model_type` and its keys it is another architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    eos_id = tokenizer.token_to_id(EOS)
    settings: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT_LENGTH,
        "tie_word_embeddings": False,
        "eos_token_id": eos_id,
        **config,
    }
    model_class, arguments_class = _get_classes(settings)
    model = model_class(arguments_class.from_dict(settings))
    parameters: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    keys = mx.random.split(mx.random.key(seed), len(parameters))
    weights = {
        name: mx.random.normal(array.shape, key=key) * (0.3 if array.ndim > 1 else 0.1) + (array.ndim == 1)
        for key, (name, array) in zip(keys, parameters.items(), strict=True)
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(settings))
    write_tokenizer(folder, tokenizer)
    return folder


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE: every byte has a token, so that any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer, context_length: int = CONTEXT_LENGTH) -> None:
    """tokenizer.json and tokenizer_config.json, with a chat template."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
