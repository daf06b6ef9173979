"""Chat templates, known by what they do: which turns they render, how, and what is refused because it would be lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_grpc.errors import InvalidField, UnsupportedField
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake.chat import ROLES, render_chat
from mlx_grpc.service.intake.templates.chat_template import ChatTemplate, UnusableTemplate
from mlx_grpc.service.intake.templates.probe import first_lost, sentinel
from mlx_grpc.service.intake.templates.traits import ContentForm, RepeatedTurns, TemplateTraits
from mlx_grpc.service.intake.tokenizer import Tokenizer
from tests.helpers import templates
from tests.helpers.templates import with_template

HI = Message("user", "hi")
YES = Message("assistant", "yes")
BRIEF = Message("developer", "be brief")
KIND = Message("system", "be kind")
RESULT = Message("tool", "42")


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("templates")


def rendered(tokenizer: Tokenizer, *messages: Message, **args: object) -> str:
    return render_chat(Chat(messages, json.dumps(args) if args else ""), tokenizer)


def refused(tokenizer: Tokenizer, *messages: Message, **args: object) -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        rendered(tokenizer, *messages, **args)
    return caught.value


def traits_of(tokenizer: Tokenizer) -> TemplateTraits:
    assert tokenizer.chat_template is not None
    return tokenizer.chat_template.traits


# What is seen by trying.


@pytest.mark.parametrize(
    ("template", "roles"),
    [
        (templates.ECHO, ROLES),
        (templates.SILENT, {"system", "user", "assistant"}),
        (templates.STRICT, {"user", "assistant"}),
        (templates.DEVELOPER, ROLES - {"tool"}),
        (templates.PARTS, ROLES),
        (templates.TOOL_LATER, ROLES),
        (templates.ALTERING, ROLES),
    ],
    ids=["echo", "silent", "strict", "developer", "parts", "tool-later", "altering"],
)
def test_rendered_roles_are_found(folder: Path, template: str, roles: set[str]) -> None:
    """Each role is tried in the places where it usually stands."""
    assert traits_of(with_template(folder, template)).content.keys() == roles


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (templates.ECHO, ContentForm.TEXT),
        (templates.PARTS, ContentForm.PARTS),
        (templates.EITHER, ContentForm.EITHER),
    ],
    ids=["echo", "parts", "either"],
)
def test_form_of_content_is_found(folder: Path, template: str, form: ContentForm) -> None:
    """A template that writes a list as Python would takes text: its words are there, but with brackets around."""
    assert set(traits_of(with_template(folder, template)).content.values()) == {form}


@pytest.mark.parametrize(
    ("template", "repeated"),
    [
        (templates.ECHO, RepeatedTurns.SEPARATE),
        (templates.MERGING, RepeatedTurns.MERGED),
        (templates.ALTERNATING, RepeatedTurns.REFUSED),
        (templates.LAST_QUESTION, RepeatedTurns.LOST),
    ],
    ids=["echo", "merging", "alternating", "last-question"],
)
def test_repeated_turns_are_found(folder: Path, template: str, repeated: RepeatedTurns) -> None:
    """Two user turns in a row stay apart, are put together, refused or lost."""
    assert traits_of(with_template(folder, template)).repeated_turns is repeated


def test_what_is_stripped_is_found(folder: Path) -> None:
    """White space by role, and an earlier assistant turn's reasoning."""
    altering, echo = (traits_of(with_template(folder, one)) for one in (templates.ALTERING, templates.ECHO))
    assert altering.trims == {"system", "developer", "user", "assistant"} | {"tool"}  # JSON writes a new line as \n
    assert altering.strips_reasoning
    assert not echo.trims
    assert not echo.strips_reasoning


def test_place_of_system_turns_is_found(folder: Path) -> None:
    """Anywhere, or first only."""
    assert traits_of(with_template(folder, templates.ECHO)).later_system
    assert not traits_of(with_template(folder, templates.SYSTEM_FIRST)).later_system


def test_words_of_a_refusal_are_kept(folder: Path) -> None:
    """By role, for those that the template raises an error for in every place."""
    refusals = traits_of(with_template(folder, templates.STRICT)).refusals
    assert refusals == dict.fromkeys(("system", "developer", "tool"), "only user and assistant")


# Developer turns.


@pytest.mark.parametrize(
    "template", [templates.SILENT, templates.NAMELESS, templates.ECHO], ids=["silent", "nameless", "echo"]
)
def test_unknown_developer_becomes_system(folder: Path, template: str) -> None:
    """Whether the template leaves the role out, writes it unmarked, or writes any name: it does not know this one."""
    text = rendered(with_template(folder, template), BRIEF, HI)
    assert text == "<|system|>be brief<|end|><|user|>hi<|end|><|assistant|>"


def test_known_developer_is_passed(folder: Path) -> None:
    """The template has a form of its own for it."""
    text = rendered(with_template(folder, templates.DEVELOPER), BRIEF, HI)
    assert text.startswith("<|instructions|>be brief<|end|>")


def test_developer_of_a_template_without_system_is_refused(folder: Path) -> None:
    """There is nothing that the turn could become."""
    error = refused(with_template(folder, templates.STRICT), BRIEF, HI)
    assert error.field == "chat.messages[0].role"
    assert "developer" in error.message
    assert error.message.endswith("only user and assistant")


# Typed parts.


def test_typed_parts_are_passed_where_they_are_wanted(folder: Path) -> None:
    """A string would come out empty there."""
    assert rendered(with_template(folder, templates.PARTS), KIND, HI) == (
        "<|system|>be kind<|end|><|user|>hi<|end|><|assistant|>"
    )


def test_each_role_has_its_form(folder: Path) -> None:
    """One role's turns as typed parts, the others' as strings."""
    tokenizer = with_template(folder, templates.USER_PARTS)
    assert traits_of(tokenizer).roles_of_parts == ("user",)
    assert rendered(tokenizer, KIND, HI, YES, HI).startswith(
        "<|system|>be kind<|end|><|user|>hi<|end|><|assistant|>yes"
    )


def test_typed_parts_are_continued(folder: Path) -> None:
    """The prompt ends within the last part of the last message."""
    chat = Chat((HI, YES), continue_final_message=True)
    assert render_chat(chat, with_template(folder, templates.PARTS)) == "<|user|>hi<|end|><|assistant|>yes"


# Lost turns.


@pytest.mark.parametrize(
    ("template", "messages", "position"),
    [
        (templates.SILENT, (HI, YES, RESULT), 2),
        (templates.SYSTEM_FIRST, (KIND, HI, YES, KIND, HI), 3),
        (templates.SYSTEM_FIRST, (HI, YES, BRIEF, HI), 2),
        (templates.LAST_SYSTEM, (KIND, BRIEF, HI), 0),
        (templates.LAST_QUESTION, (HI, YES, HI), 0),
        (templates.TOOL_LATER, (RESULT, HI), 0),
        (templates.ON_DEMAND, (KIND, HI), 0),
        (templates.READING, (Message("system", "patience"), Message("user", "please")), 0),
    ],
    ids=["silent", "later", "later-developer", "earlier", "history", "tool-first", "on-demand", "reading"],
)  # fmt: skip
def test_turn_that_would_vanish_is_refused_by_name(
    folder: Path, template: str, messages: tuple[Message, ...], position: int
) -> None:
    """Nothing that was said is lost in silence, whatever it says."""
    error = refused(with_template(folder, template), *messages)
    assert error.field == f"chat.messages[{position}].role"
    assert messages[position].role in error.message


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (templates.SYSTEM_FIRST, (KIND, HI, YES, HI)),
        (templates.LAST_SYSTEM, (KIND, HI, YES, HI)),
        (templates.LAST_QUESTION, (HI,)),
        (templates.TOOL_LATER, (HI, YES, RESULT)),
        (templates.READING, (Message("user", "please"),)),
    ],
    ids=["first", "one", "one-question", "tool-after", "reading"],
)
def test_same_turns_in_their_place_pass(folder: Path, template: str, messages: tuple[Message, ...]) -> None:
    """What a template loses in one place is not refused in another."""
    text = rendered(with_template(folder, template), *messages)
    assert all(message.content in text for message in messages)


def test_words_of_a_lost_turn_elsewhere_do_not_hide_it(folder: Path) -> None:
    """The system's only word is also the user's: it is lost all the same."""
    error = refused(with_template(folder, templates.SYSTEM_FIRST), HI, YES, Message("system", "hi"), HI)
    assert error.field == "chat.messages[2].role"


def test_arguments_change_what_is_lost(folder: Path) -> None:
    """The same roles pass with an argument for which the template renders them, and are refused without it again."""
    tokenizer = with_template(folder, templates.ON_DEMAND)
    assert "be kind" in rendered(tokenizer, KIND, HI, with_system=True)
    refused(tokenizer, KIND, HI)
    assert "be kind" in rendered(tokenizer, KIND, HI, with_system=True)


def test_empty_turns_have_nothing_to_lose(folder: Path) -> None:
    """Whether they are written is the template's business."""
    template = "{% for m in messages %}{% if m.content %}<|{{ m.role }}|>{{ m.content }}{% endif %}{% endfor %}"
    assert rendered(with_template(folder, template), Message("system", ""), HI) == "<|user|>hi"


# What a template may do to the words.


@pytest.mark.parametrize(
    "message",
    [
        Message("user", "/no_think"),
        Message("user", "why /no_think"),
        Message("user", "  \n "),
        Message("user", "straße"),
        Message("tool", 'a "quoted" line\nand another'),
        Message("assistant", "<think>internationalisation</think>"),
        Message("assistant", "<think>internationalisation</think>\n\nyes"),
        Message("system", "  internationalisation\n"),
    ],
    ids=["control-word", "with-control-word", "white-space", "capitals", "quoted", "reasoning-alone", "reasoning",
         "trimmed"],
)  # fmt: skip
def test_altered_words_pass(folder: Path, message: Message) -> None:
    """Trimming, quoting, splitting and capitals lose no turn; control words and old reasoning are not missed."""
    rendered(with_template(folder, templates.ALTERING), message, HI)


def test_reasoning_before_the_continued_words_may_go(folder: Path) -> None:
    """The prompt ends where the template puts the last words."""
    chat = Chat((HI, Message("assistant", "<think>long</think>\n\nIt is ")), continue_final_message=True)
    assert render_chat(chat, with_template(folder, templates.ALTERING)).endswith("<|assistant|>It is")


def test_white_space_at_the_end_of_a_continued_message_stays_where_it_is_kept(folder: Path) -> None:
    """Only a template that trims takes it away."""
    chat = Chat((HI, Message("assistant", "It is ")), continue_final_message=True)
    assert render_chat(chat, with_template(folder, templates.ECHO)).endswith("<|assistant|>It is ")


def test_continued_message_that_is_left_out_is_refused(folder: Path) -> None:
    """There is nowhere to go on."""
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(InvalidField) as caught:
        render_chat(Chat((HI, YES), continue_final_message=True), with_template(folder, template))
    assert caught.value.field == "chat.messages[1].role"


# Refusals of the template's own.


@pytest.mark.parametrize(
    ("template", "messages", "field"),
    [
        (templates.STRICT, (KIND, HI), "chat.messages[0].role"),
        (templates.STRICT, (HI, YES, RESULT, HI), "chat.messages[2].role"),
        (templates.ALTERNATING, (HI, HI), "chat.messages[1].role"),
        (templates.ALTERNATING, (HI, YES, KIND, HI), "chat.messages[2].role"),
        (templates.ALTERNATING, (YES, HI), "chat"),
        (templates.READING, (HI,), "chat"),
    ],
    ids=["system", "tool", "repeated", "later-system", "begins-wrong", "reading"],
)
def test_refusal_names_the_message(folder: Path, template: str, messages: tuple[Message, ...], field: str) -> None:
    """The first of a role that is always refused, or that repeats the role before it; else the chat."""
    assert refused(with_template(folder, template), *messages).field == field


def test_refusal_of_an_argument_is_the_chats(folder: Path) -> None:
    """A template that needs an argument cannot be tried, and is asked each time."""
    template = "{% if not mood %}{{ raise_exception('give a mood') }}{% endif %}" + templates.ECHO
    tokenizer = with_template(folder, template)
    assert traits_of(tokenizer).content == {}
    assert refused(tokenizer, HI).message.endswith("give a mood")
    assert rendered(tokenizer, KIND, HI, mood="calm").startswith("<|system|>be kind")


# Cost.


class Counted:
    """A template in Python that counts its renderings."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, messages: object, args: object, add_generation_prompt: bool) -> str:
        self.calls += 1
        return str(messages)


def test_order_of_roles_is_tried_once() -> None:
    """A second conversation of the same order, whatever it says, costs one rendering; other arguments another trial."""
    render = Counted()
    template = ChatTemplate(render)
    tried = render.calls
    assert tried < 40
    for _ in range(3):
        assert template.try_roles(["user", "assistant", "user"], "", continued=False).lost is None
    assert render.calls == tried + 1
    template.try_roles(["user", "assistant", "user"], '{"mood": 1}', continued=False)
    template.try_roles(["user"], "", continued=False)
    assert render.calls == tried + 3


def test_template_with_a_fault_is_not_run() -> None:
    """Its chats are refused as what this model cannot do."""

    class Faulty:
        chat_template = UnusableTemplate("it takes more than 5 s")

    with pytest.raises(UnsupportedField, match="it takes more than 5 s") as caught:
        render_chat(Chat((HI,)), Faulty())  # type: ignore[arg-type]
    assert caught.value.field == "chat"


@settings(max_examples=50)
@given(order=st.lists(st.integers(0, 4095), min_size=1, max_size=8, unique=True))
def test_sentinels_are_told_apart(order: list[int]) -> None:
    """Also where they stand together, a missing one is missed."""
    text = "".join(sentinel(position).upper() for position in order)
    missing = next(position for position in range(4096) if position not in order)
    assert first_lost(text, 4096) == missing
