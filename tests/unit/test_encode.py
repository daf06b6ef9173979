"""Texts to tokens: what is refused before time goes into it, and that the ids are the tokenizer's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_grpc.errors import InvalidField, PromptTooLong
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake import look_up as look_up_module
from mlx_grpc.service.intake.encode import PIECE_CHARACTERS, check_tokens, encode_prompt
from mlx_grpc.service.intake.look_up import look_up, max_characters, text_of
from mlx_grpc.service.intake.tokenizer import AT_ONCE, ScriptedTokenizer, Tokenizer, load_tokenizer
from mlx_grpc.service.intake.turns import Turns
from tests.helpers.rpc import in_loop
from tests.helpers.tokenizer import byte_level, make_folder, sentencepiece

LONG_TEXTS = (
    "The quick brown fox. " * 1000,
    "a" * 3 * AT_ONCE,
    " " * 3 * AT_ONCE,
    "🦊e\u0301\u0302<|im_end|>" * AT_ONCE,
    "\x00\x07" * AT_ONCE,
)


@pytest.fixture(name="tokenizer", scope="module", params=[byte_level, sentencepiece])
def _tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(str(make_folder(tmp_path_factory.mktemp("encode"), request.param())))


@pytest.mark.parametrize("text", LONG_TEXTS, ids=range(len(LONG_TEXTS)))
@pytest.mark.parametrize("special", [True, False])
def test_long_texts_have_the_same_tokens(tokenizer: Tokenizer, text: str, special: bool) -> None:
    """As in the library's call for one text, which would hold the interpreter all the time; and the way back."""
    backend = tokenizer._backend  # type: ignore[attr-defined]
    ids = tokenizer.encode(text, special)
    assert len(ids) > AT_ONCE or len(text) > AT_ONCE
    assert ids == backend.encode(text, add_special_tokens=special).ids
    assert tokenizer.decode(ids) == backend.decode(ids, skip_special_tokens=False)


class Never:
    """A tokenizer that must not be asked."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        raise AssertionError("it was tokenized")


@pytest.mark.parametrize("messages", [1, 4])
@in_loop
async def test_a_chat_far_past_the_context_is_not_rendered(messages: int) -> None:
    """What is said in it is counted first: there is no template here that could be run."""
    chat = Chat((Message("user", "x" * (641 // messages + 1)),) * messages)
    turns = Turns()
    with pytest.raises(PromptTooLong) as caught:
        await encode_prompt(chat, Never(), 10, 100, turns)  # type: ignore[arg-type]
    assert caught.value.metadata["context_length"] == "10"
    await turns.close()


class Counting(ScriptedTokenizer):
    """Notes how many characters it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = 0

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        self.characters += len(text)
        return super().encode(text, add_special_tokens)


def test_a_text_of_too_many_tokens_is_not_tokenized_to_its_end() -> None:
    """Only until they are too many."""
    tokenizer = Counting()
    with pytest.raises(PromptTooLong) as caught:
        check_tokens("z" * 50 * PIECE_CHARACTERS, tokenizer, PIECE_CHARACTERS)
    assert caught.value.metadata["prompt_characters"] == str(50 * PIECE_CHARACTERS)
    assert tokenizer.characters == 2 * PIECE_CHARACTERS


def test_a_long_text_of_few_tokens_passes() -> None:
    """Its characters alone do not refuse it: a word of the scripted model has up to seven."""
    check_tokens(" people" * 2 * PIECE_CHARACTERS, ScriptedTokenizer(), 2 * PIECE_CHARACTERS + 100)
    check_tokens("z" * 2 * PIECE_CHARACTERS, Never(), PIECE_CHARACTERS)  # type: ignore[arg-type]


def test_it_ends_when_nobody_waits_for_it() -> None:
    """After the piece that it is at."""
    tokenizer = Counting()
    with pytest.raises(PromptTooLong):
        check_tokens(" people" * 10 * PIECE_CHARACTERS, tokenizer, 6 * PIECE_CHARACTERS, lambda: True)
    assert tokenizer.characters == PIECE_CHARACTERS


@in_loop
async def test_what_is_only_looked_up_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters before they are tokenized, tokens before they are shown or decoded, and the text that they stand
    for; each names its field."""
    turns, scripted = Turns(), ScriptedTokenizer()
    most = max_characters(16)

    async def refused_for(source: str | Chat) -> str:
        with pytest.raises(InvalidField) as caught:
            await look_up(source, scripted, 16, turns, lambda *_: None)
        return caught.value.field

    assert await refused_for("x" * (most + 1)) == "text"
    assert await refused_for(Chat((Message("user", "x" * (most + 1)),))) == "chat.messages"
    assert await refused_for(Chat((Message("user", "x" * most),))) == "chat"
    monkeypatch.setattr(look_up_module, "MAX_TOKENS", 5)
    assert await refused_for("xxxxxx") == "text"
    with pytest.raises(InvalidField, match="6 tokens, which may be at most 5"):
        await text_of((1,) * 6, 512, scripted, turns)
    monkeypatch.setattr(look_up_module, "MAX_TEXT_BYTES", 5)
    with pytest.raises(InvalidField, match="bytes of text"):
        await text_of((257, 300), 512, scripted, turns)
    await turns.close()


def test_a_folder_may_have_several_templates_and_no_default(tmp_path: Path) -> None:
    """The model loads; a chat is what it cannot take."""
    folder = make_folder(tmp_path, byte_level(), None)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("x")
    template = load_tokenizer(str(folder)).chat_template
    assert template is not None
    assert "no default" in template.fault
