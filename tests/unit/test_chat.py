"""Conversations to prompts, and what is wrong with some."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from mlx_grpc.errors import InvalidField, UnsupportedField
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake import chat as module
from mlx_grpc.service.intake.chat import render_chat
from mlx_grpc.service.intake.encode import encode_prompt
from mlx_grpc.service.intake.templates.traits import MAX_REASON_CHARS
from mlx_grpc.service.intake.tokenizer import ScriptedTokenizer, Tokenizer, load_tokenizer
from mlx_grpc.service.intake.turns import Turns
from tests.helpers.templates import with_template
from tests.helpers.tokenizer import TEMPLATE, byte_level, make_folder, sentencepiece

SCRIPTED = ScriptedTokenizer()
HI = Message("user", "hi")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A real tokenizer; its template refuses the system role."""
    return load_tokenizer(str(make_folder(tmp_path_factory.mktemp("chat"), byte_level())))


def _refusal(chat: Chat, tokenizer: Tokenizer) -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        render_chat(chat, tokenizer)
    assert "\n" not in caught.value.message
    return caught.value


def test_new_turn(tokenizer: Tokenizer) -> None:
    """The prompt ends where the assistant begins, and template arguments reach the template."""
    head = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render_chat(Chat((HI,)), tokenizer) == head
    assert render_chat(Chat((HI,), '{"mood": "calm"}'), tokenizer) == f"{head}[calm]"


def test_final_message_is_continued(tokenizer: Tokenizer) -> None:
    """The prompt ends within the assistant's last message."""
    chat = Chat((HI, Message("assistant", "Well,")), continue_final_message=True)
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nWell,"
    assert render_chat(chat, tokenizer) == expected


def test_special_tokens_are_the_templates_alone(tmp_path: Path) -> None:
    """Encoding a rendered chat adds no second start token."""
    template = "{{ bos_token }}" + TEMPLATE
    tokenizer = load_tokenizer(str(make_folder(tmp_path, sentencepiece(), template, bos_token="<s>")))
    ids = asyncio.run(encode_prompt(Chat((HI,)), tokenizer, 4096, tokenizer.vocab_size, Turns()))
    (start,) = [token_id for token_id in ids if tokenizer.token_bytes(token_id) == b"<s>"]
    assert ids[0] == start


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        (Chat(()), "chat.messages"),
        (Chat((Message("system", "be kind"),)), "chat.messages"),
        (Chat((HI, HI, Message("robot", "x"))), "chat.messages[2].role"),
        (Chat((Message("", "x"), HI)), "chat.messages[0].role"),
        (Chat((HI, Message("user", "half \ud800"))), "chat.messages[1].content"),
        (Chat((HI,) * (module.MAX_MESSAGES + 1)), "chat.messages"),
        (Chat((Message("user", "x" * (module.MAX_CHAT_CHARS + 1)),)), "chat.messages"),
        (Chat((HI,), continue_final_message=True), "chat.continue_final_message"),
    ],
)  # fmt: skip
def test_bad_conversations_name_their_field(chat: Chat, field: str) -> None:
    """Each fault of a conversation is refused with the path of the field at fault."""
    assert _refusal(chat, SCRIPTED).field == field


@pytest.mark.parametrize(
    "args",
    [
        "{", "[1]", "null", '"text"', "[" * 50_000, "1" * 5_000, '{"messages": []}', '{"tools": []}',
        '{"chat_template": "x"}', '{"self": 1}', '{"_x": 1}', '{"a b": 1}', '{"return_dict": false}',
        '{"x": "' + "x" * module.MAX_TEMPLATE_ARGS_BYTES + '"}',
    ],
    ids=lambda args: args[:24],
)  # fmt: skip
def test_bad_template_arguments(tokenizer: Tokenizer, args: str) -> None:
    """What is no object, or would take the place of the conversation or of the template, is refused."""
    assert _refusal(Chat((HI,), args), tokenizer).field == "chat.template_args_json"


def test_all_that_transformers_takes_is_reserved() -> None:
    """No argument of a template becomes one of transformers' own: a new one there fails here."""
    parameters = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    assert set(parameters) - {"kwargs"} <= module.RESERVED_ARGS


def test_refusing_template_is_quoted(tokenizer: Tokenizer) -> None:
    """The template's own words say why, on the message of the role that it refuses."""
    error = _refusal(Chat((HI, Message("assistant", "yes"), Message("system", "be kind"), HI)), tokenizer)
    assert error.field == "chat.messages[2].role"
    assert error.message.endswith("no system role")


def test_quotation_is_one_short_line() -> None:
    """Only the first line, and not more than a limit of it."""
    args = json.dumps({"raise": "x" * 1000 + "\nsecond"})
    assert len(_refusal(Chat((HI,), args), SCRIPTED).message) < MAX_REASON_CHARS + 100


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(n) %}x{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ messages[9].content.missing }}",
        "{% for m in %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ 'xxxxxxxx' * n }}",
    ],
)
def test_runaway_templates_end_in_a_refusal(tmp_path: Path, template: str) -> None:
    """Escapes, endless recursion, giant ranges and texts, plain mistakes: the chat is refused, no more."""
    chat = Chat((HI,), json.dumps({"n": 1_000_000}))
    assert _refusal(chat, with_template(tmp_path, template)).field == "chat"


def test_half_a_character_from_the_arguments(tokenizer: Tokenizer) -> None:
    """JSON can smuggle half a surrogate pair into the prompt; it is refused before it is encoded."""
    assert _refusal(Chat((HI,), r'{"mood": "\ud800"}'), tokenizer).field == "chat.template_args_json"


def test_model_without_template(tmp_path: Path) -> None:
    """A chat is a field that such a model cannot honour."""
    with pytest.raises(UnsupportedField) as caught:
        render_chat(Chat((HI,)), with_template(tmp_path, None))
    assert caught.value.field == "chat"
