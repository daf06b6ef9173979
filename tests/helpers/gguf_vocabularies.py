"""Small tokenizers as the folders of model families have them, and what llama.cpp's converter writes of them."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter, generate_merges

from tests.helpers.llama import CHAT_TEMPLATE, TEXT

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_SPACE = "\u2581"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As Mistral publishes it."""
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As OpenAI publishes it."""
_CORPUS = [
    TEXT, "Don't STOP at 12345!\n\nThey'LL say: `x = [1, 22, 333];`\n\tthat's it...", "Hello hello HELLO, helloWorld",
    "    indented\n        more", "<b>bold</b> and <i>other</i>",
]  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """tokenizer: the folder's, as a library makes it. metadata: the file's, without `tokenizer.ggml.`."""

    tokenizer: Tokenizer
    metadata: dict[str, Any]
    bos: str
    eos: str
    template: str = CHAT_TEMPLATE
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.metadata["tokens"])


def byte_level(pre: str, **metadata: Any) -> Vocabulary:
    """BPE over bytes, with marks; split as `tokenizer.ggml.pre` says."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"]
    learner = Tokenizer(models.BPE())
    splitter = _splitters()[pre]
    learner.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_CORPUS * 3, trainer)
    learned = json.loads(learner.to_str())["model"]
    vocab, merges = learned["vocab"], [tuple(pair) for pair in learned["merges"]]
    if pre == "qwen2":
        tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token=marks[2]).backend_tokenizer
    else:
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre in ("llama-bpe", "tekken")))
        tokenizer.pre_tokenizer = splitter
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(mark, special=mark != "<tool_call>", normalized=False) for mark in marks])
    tokens = sorted(vocab, key=vocab.__getitem__)
    kinds = {**dict.fromkeys(marks, CONTROL), "<tool_call>": USER_DEFINED}
    written = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [kinds.get(token, NORMAL) for token in tokens],
        "merges": [" ".join(pair) for pair in merges],
        "bos_token_id": vocab[marks[0]],
        "eos_token_id": vocab[marks[2]],
        "add_bos_token": False,
    }
    return Vocabulary(tokenizer, written | metadata, marks[0], marks[2])


def _splitters() -> dict[str, Any]:
    """By GGUF's name, as the folders of the models have them."""
    tiktoken = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    by_itself = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {
        "gpt-2": by_itself,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_itself]),
        "llama-bpe": _split(tiktoken),
        "dbrx": _split(tiktoken),
        "tekken": _split(TEKKEN),
        "gpt-4o": _split(O200K),
        "qwen2": Qwen2Tokenizer().backend_tokenizer.pre_tokenizer,
    }


def _split(pattern: str) -> Any:
    after = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), after])


@dataclass(frozen=True)
class Pieces:
    """A trained SentencePiece vocabulary, and the library's own answer."""

    processor: Any
    tokens: list[str]
    scores: list[float]
    kinds: list[int]

    def merges(self) -> list[tuple[str, str]]:
        """As transformers derives them."""
        pairs: list[tuple[str, str]] = generate_merges(
            {token: index for index, token in enumerate(self.tokens)}, list(zip(self.tokens, self.scores, strict=True))
        )
        return pairs


def train_pieces(specials: dict[str, str], control: Sequence[str], own: Sequence[str], *, prefix: bool) -> Pieces:
    """specials: the pieces for pad, unk, bos and eos, in the order of their ids. own: pieces that the vocabulary has as
    a whole. prefix: a space goes before a text."""
    import sentencepiece

    names: dict[str, Any] = {"pad_id": -1}
    for index, (kind, name) in enumerate(specials.items()):
        names |= {f"{kind}_id": index, f"{kind}_piece": name}
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([part for text in _CORPUS * 3 for part in text.split("\n") if part]),
        model_writer=written, model_type="bpe", vocab_size=480, character_coverage=1.0, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", add_dummy_prefix=prefix, remove_extra_whitespaces=False,
        control_symbols=list(control), user_defined_symbols=list(own), hard_vocab_limit=False, minloglevel=2,
        **names,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    count = processor.get_piece_size()
    return Pieces(
        processor,
        [processor.id_to_piece(index) for index in range(count)],
        [processor.get_score(index) for index in range(count)],
        [_kind(processor, index, own) for index in range(count)],
    )


def _kind(processor: Any, index: int, own: Sequence[str]) -> int:
    if processor.is_unknown(index):
        return UNKNOWN
    if processor.is_control(index):
        return CONTROL
    if processor.is_byte(index):
        return BYTE
    return USER_DEFINED if processor.id_to_piece(index) in own else NORMAL


def gemma() -> tuple[Vocabulary, Pieces]:
    """No space before a text; runs of spaces and of newlines, and HTML's tags, are tokens as a whole."""
    specials = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}
    own = ["\n", "\n\n", "\n\n\n", *[_SPACE * count for count in range(2, 9)], "<b>", "</b>"]
    pieces = train_pieces(specials, ["<mask>", "<start_of_turn>", "<end_of_turn>"], own, prefix=False)
    return pieces_vocabulary(pieces, "<bos>", "<end_of_turn>", own), pieces


def pieces_vocabulary(pieces: Pieces, bos: str, eos: str, own: Sequence[str]) -> Vocabulary:
    """Gemma's folder, and what the converter writes: own pieces with real spaces, and a score far below the others."""
    vocab = {token: index for index, token in enumerate(pieces.tokens)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=pieces.merges(), bos_token=bos, eos_token="<eos>").backend_tokenizer
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in own])
    marks = [token for token, kind in zip(pieces.tokens, pieces.kinds, strict=True) if kind in (CONTROL, UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
    is_own = [kind == USER_DEFINED for kind in pieces.kinds]
    written = {
        "model": "llama",
        "pre": "default",
        "tokens": [
            token.replace(_SPACE, " ") if own_one else token
            for token, own_one in zip(pieces.tokens, is_own, strict=True)
        ],
        "scores": [-1000.0 if own_one else score for score, own_one in zip(pieces.scores, is_own, strict=True)],
        "token_type": pieces.kinds,
        "bos_token_id": vocab[bos],
        "eos_token_id": vocab["<eos>"],
        "unknown_token_id": vocab["<unk>"],
        "padding_token_id": vocab["<pad>"],
        "add_bos_token": True,
        "add_space_prefix": False,
    }
    return Vocabulary(tokenizer, written, bos, eos)


def sentence_piece(marks: Sequence[str], *, marks_take_space: bool) -> tuple[Vocabulary, Pieces]:
    """Llama's kind, which Mistral and Phi-3 have too: a space before a text. marks: added after the pieces."""
    pieces = train_pieces({"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, [], [], prefix=True)
    tokens = [*pieces.tokens, *marks]
    vocab = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(vocab=vocab, merges=pieces.merges(), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    strips = dict.fromkeys(marks, marks_take_space) | {"</s>": marks_take_space, "<s>": False, "<unk>": False}
    tokenizer.add_special_tokens(
        [AddedToken(mark, rstrip=strip, normalized=False, special=True) for mark, strip in strips.items()]
    )
    written = {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": [*pieces.scores, *[-1000.0] * len(marks)],
        "token_type": [*pieces.kinds, *[CONTROL] * len(marks)],
        "bos_token_id": 1,
        "eos_token_id": vocab[marks[-1]] if marks else 2,
        "unknown_token_id": 0,
        "add_bos_token": True,
    }
    return Vocabulary(tokenizer, written, "<s>", marks[-1] if marks else "</s>"), pieces
