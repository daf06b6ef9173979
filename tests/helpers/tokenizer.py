"""Small tokenizers of the three kinds there are, trained here, as folders in Hugging Face's form."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SENTENCES = (
    "Hello there, world! How are you today?",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "Der schnelle braune Fuchs springt über den faulen Hund; naïve café.",
    "東京は日本の首都です。", "🦊 and 🐶 are friends",
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if mood %}[{{ mood }}]{% endif %}{% endif %}"
)


def byte_level() -> Tokenizer:
    """GPT-2's kind: every byte is in the alphabet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("é¡é", normalized=False)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Llama 2's kind: U+2581 for spaces, `<0xNN>` for bytes that no piece has, a space in front of a text."""
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *alphabet],
        limit_alphabet=30,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    # The trainer takes them for special tokens; a real vocabulary has them as plain pieces.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in alphabet]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def wordpiece() -> Tokenizer:
    """BERT's kind: what a piece looks like as text depends on those around it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def make_folder(folder: Path, tokenizer: Tokenizer, template: str | None = TEMPLATE, **special_tokens: str) -> Path:
    """Write tokenizer.json and tokenizer_config.json; returns the folder. `special_tokens`: bos_token and others."""
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = [token for token in ("<|im_end|>", "</s>") if tokenizer.token_to_id(token) is not None]
    eos_token = ends[0] if ends else None
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos_token, **special_tokens}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
