"""Tokenizers: bytes of single tokens, special tokens, folders that are none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_grpc.service.intake.tokenizer import ScriptedTokenizer, Tokenizer, load_tokenizer
from tests.helpers.tokenizer import byte_level, make_folder, sentencepiece, wordpiece

TEXTS = ("Hello there, world!", "naïve café, 東京 🦊", "  two  spaces\n\tand a tab", "x")


@pytest.fixture(scope="module")
def byte_level_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(str(make_folder(tmp_path_factory.mktemp("bl"), byte_level())))


@pytest.fixture(scope="module")
def sentencepiece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(str(make_folder(tmp_path_factory.mktemp("sp"), sentencepiece())))


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_bytes_join_to_the_text(byte_level_tokenizer: Tokenizer, text: str) -> None:
    """The bytes of the tokens, one after the other, are the text's."""
    ids = byte_level_tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(byte_level_tokenizer.token_bytes, ids)).decode() == text
    assert byte_level_tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_bytes_join_to_the_text(sentencepiece_tokenizer: Tokenizer, text: str) -> None:
    """So they are for SentencePiece, but for the space that it puts in front."""
    ids = sentencepiece_tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(sentencepiece_tokenizer.token_bytes, ids)).decode() == f" {text}"
    assert sentencepiece_tokenizer.drops_first_space
    assert sentencepiece_tokenizer.decode(ids) == text


def test_special_tokens_are_their_text(byte_level_tokenizer: Tokenizer) -> None:
    """A special token is known as one, and its bytes are its text."""
    (token_id,) = byte_level_tokenizer.encode("<|im_end|>", add_special_tokens=False)
    assert byte_level_tokenizer.is_special(token_id)
    assert byte_level_tokenizer.token_bytes(token_id) == b"<|im_end|>"


def test_added_tokens_are_plain_text(byte_level_tokenizer: Tokenizer) -> None:
    """An added token that is not special is text, also where its characters are in the byte alphabet."""
    (token_id,) = byte_level_tokenizer.encode("é¡é", add_special_tokens=False)
    assert not byte_level_tokenizer.is_special(token_id)
    assert byte_level_tokenizer.token_bytes(token_id) == "é¡é".encode()


def test_special_tokens_are_added_when_asked_for(sentencepiece_tokenizer: Tokenizer) -> None:
    """The start token stands in front of a prompt, and not of a rendered chat."""
    with_start = sentencepiece_tokenizer.encode("Hello", add_special_tokens=True)
    without = sentencepiece_tokenizer.encode("Hello", add_special_tokens=False)
    assert with_start[1:] == without
    assert sentencepiece_tokenizer.token_bytes(with_start[0]) == b"<s>"


@pytest.mark.parametrize("token_id", [-1, 10**6, 2**40])
def test_ids_outside_the_vocabulary_have_no_bytes(byte_level_tokenizer: Tokenizer, token_id: int) -> None:
    """A model's vocabulary may be padded past the tokenizer's; such ids are nothing."""
    assert byte_level_tokenizer.token_bytes(token_id) == b""
    assert not byte_level_tokenizer.is_special(token_id)


@pytest.mark.parametrize("kind", ["script", "folder"])
def test_half_a_surrogate_pair_is_an_encoding_error(byte_level_tokenizer: Tokenizer, kind: str) -> None:
    """Both tokenizers refuse it in the same way."""
    tokenizer = byte_level_tokenizer if kind == "folder" else load_tokenizer("script:{}")
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("half \ud800", add_special_tokens=False)


def test_vocabulary_covers_added_tokens(byte_level_tokenizer: Tokenizer) -> None:
    """The last id has bytes, the next is outside."""
    assert byte_level_tokenizer.token_bytes(byte_level_tokenizer.vocab_size - 1)
    assert not byte_level_tokenizer.token_bytes(byte_level_tokenizer.vocab_size)


def test_wordpiece_is_not_exact(tmp_path: Path) -> None:
    """Pieces whose text depends on their neighbours are found out by their decoder."""
    tokenizer = load_tokenizer(str(make_folder(tmp_path, wordpiece())))
    assert not tokenizer.bytes_are_exact
    token_id = tokenizer.encode("hello", add_special_tokens=False)[0]
    assert tokenizer.token_bytes(token_id) == tokenizer.decode([token_id]).encode() != b""


def test_eos_ids_come_from_the_model_and_the_tokenizer(tmp_path: Path) -> None:
    """generation_config.json goes before config.json; the tokenizer's own end token is always one."""
    folder = make_folder(tmp_path, byte_level())
    own = load_tokenizer(str(folder)).eos_ids
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert load_tokenizer(str(folder)).eos_ids == tuple(sorted({7, *own}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 5]}))
    assert load_tokenizer(str(folder)).eos_ids == tuple(sorted({3, 5, *own}))


def test_lengths_from_training_do_not_cut_a_prompt(tmp_path: Path) -> None:
    """Truncation and padding saved in the tokenizer's file are not applied."""
    backend = byte_level()
    backend.enable_truncation(max_length=4)
    backend.enable_padding(length=64)
    tokenizer = load_tokenizer(str(make_folder(tmp_path, backend)))
    text = "Hello there, world! " * 8
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_template_is_rendered(byte_level_tokenizer: Tokenizer) -> None:
    """The folder's own template is used, with its arguments."""
    template = byte_level_tokenizer.chat_template
    assert template is not None
    written = template.write([("user", "hi")], '{"mood": "calm"}', continued=False)
    assert written.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[calm]"


def test_folder_without_template(tmp_path: Path) -> None:
    """A tokenizer without a template says so."""
    assert load_tokenizer(str(make_folder(tmp_path, byte_level(), template=None))).chat_template is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", '{"model": '),
        ("tokenizer_config.json", "[]"),
        ("config.json", "{"),
        ("generation_config.json", "[]"),
        ("generation_config.json", '{"eos_token_id": ["x"]}'),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, name: str, content: str) -> None:
    """A file that is cut or holds something else is a ValueError of one line with the folder's name."""
    make_folder(tmp_path, byte_level())
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "missing"])
def test_folders_without_a_tokenizer_are_one_line(tmp_path: Path, name: str) -> None:
    """So are an empty folder and one that is not there."""
    with pytest.raises(ValueError, match=str(tmp_path)) as caught:
        load_tokenizer(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_loading_is_silent_and_needs_no_model_library(tmp_path: Path) -> None:
    """Loading prints nothing and imports neither torch nor MLX; the import alone is without transformers."""
    program = (
        "import sys; import mlx_grpc.service.intake.tokenizer as t; assert 'transformers' not in sys.modules;"
        f"t.load_tokenizer({str(make_folder(tmp_path, byte_level()))!r});"
        "assert not {'torch', 'mlx', 'mlx.core'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_scripted_tokenizer_reads_its_own_bytes() -> None:
    """What the scripted model's tokenizer encodes, it decodes."""
    tokenizer = load_tokenizer("script:{}")
    assert isinstance(tokenizer, ScriptedTokenizer)
    for text in (*TEXTS, "<|start|>user\nhi<|end|>\n"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=True)) == text


def test_scripted_template() -> None:
    """The scripted model's template, with a new turn and within the last."""
    template = load_tokenizer("script:{}").chat_template
    assert template is not None
    turns = [("user", "hi"), ("assistant", "he")]
    head = "<|start|>user\nhi<|end|>\n<|start|>assistant\nhe"
    assert template.write(turns, "", continued=False).text == f"{head}<|end|>\n<|start|>assistant\n"
    assert template.write(turns, "", continued=True).text == head
