"""Chat templates of model families as their authors publish them, where a copy of them is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake.chat import ROLES, render_chat
from mlx_grpc.service.intake.templates.traits import ContentForm, RepeatedTurns, TemplateTraits, passed_role
from mlx_grpc.service.intake.tokenizer import Tokenizer
from tests.helpers.templates import with_template

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "chat_templates"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no published templates in {FOLDER}")

ALL = "system developer user assistant tool"
NO_DEVELOPER = "system user assistant tool"
NO_TOOL = "system user assistant"


class Family(NamedTuple):
    """What its template does: the roles that it renders, those that take typed parts as well as text, what a
    developer's turn becomes, what is stripped (reasoning, or a role's outer white space), the roles for which it raises
    an error, and what becomes of two user turns in a row."""

    roles: str
    parts: str = ""
    developer: str = "system"
    strips: str = ""
    refuses: str = ""
    repeated: RepeatedTurns = RepeatedTurns.SEPARATE


FAMILIES = {
    "ByteDance-Seed-OSS": Family(ALL, strips="assistant"),
    "Mistral-Small-3.2-24B-Instruct-2506": Family(
        NO_TOOL, parts=NO_TOOL, refuses="developer tool", repeated=RepeatedTurns.REFUSED
    ),
    "NVIDIA-Nemotron-Nano-v2": Family(NO_DEVELOPER, strips="reasoning assistant system user"),
    "Qwen-QwQ-32B": Family(NO_DEVELOPER, strips="reasoning"),
    "Qwen-Qwen2.5-7B-Instruct": Family(NO_DEVELOPER),
    "Qwen-Qwen3-0.6B": Family(NO_DEVELOPER, strips="reasoning"),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": Family(NO_DEVELOPER, strips="reasoning"),
    "deepseek-ai-DeepSeek-V3.1": Family(NO_DEVELOPER, strips="reasoning"),
    "meetkai-functionary-medium-v3.1": Family(ALL),
    "meetkai-functionary-medium-v3.2": Family(ALL),
    "microsoft-Phi-3.5-mini-instruct": Family(NO_TOOL),
    "mistralai-Mistral-Nemo-Instruct-2407": Family(
        NO_TOOL, refuses="developer tool", repeated=RepeatedTurns.REFUSED
    ),
    "moonshotai-Kimi-K2": Family(ALL, parts="system developer user assistant"),
    "openai-gpt-oss-120b": Family("system developer user assistant", developer="developer", refuses="tool"),
    "unsloth-mistral-Devstral-Small-2507": Family(NO_DEVELOPER, parts=NO_TOOL, refuses="developer"),
}  # fmt: skip

_loaded: dict[str, Tokenizer] = {}


@pytest.fixture(name="name", params=sorted(path.stem for path in FOLDER.glob("*.jinja")))
def _name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(name="tokenizer")
def _tokenizer(name: str, tmp_path: Path) -> Tokenizer:
    if name not in _loaded:
        template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
        _loaded[name] = with_template(tmp_path, template, bos_token="<s>", eos_token="</s>")
    return _loaded[name]


def traits_of(tokenizer: Tokenizer) -> TemplateTraits:
    assert tokenizer.chat_template is not None
    return tokenizer.chat_template.traits


def turns(roles: str) -> tuple[Message, ...]:
    """Turns of these roles, by their first letters, each with a text of its own."""
    names = {role[0]: role for role in ROLES}
    return tuple(Message(names[role], f"text {position} of {role}") for position, role in enumerate(roles))


def refused_position(tokenizer: Tokenizer, roles: str) -> str:
    """The field that such a conversation is refused for; "" for none."""
    try:
        text = render_chat(Chat(turns(roles)), tokenizer)
    except InvalidField as error:
        return error.field
    assert all(message.content in text for message in turns(roles))
    return ""


def test_traits_are_what_the_template_says(name: str, tokenizer: Tokenizer) -> None:
    """As read by a person: a family that is not in the table wants reading."""
    traits, family = traits_of(tokenizer), FAMILIES[name]
    assert set(traits.content) == set(family.roles.split())
    assert {role for role, form in traits.content.items() if form is ContentForm.EITHER} == set(family.parts.split())
    assert passed_role(traits, "developer") == family.developer
    assert set(traits.trims) | ({"reasoning"} if traits.strips_reasoning else set()) == set(family.strips.split())
    assert set(traits.refusals) == set(family.refuses.split())
    assert traits.repeated_turns is family.repeated


@pytest.mark.parametrize("roles", ["u", "su", "du", "uau", "suau", "duau"])
def test_ordinary_conversations_pass(tokenizer: Tokenizer, roles: str) -> None:
    """With every word of every turn in the prompt."""
    assert refused_position(tokenizer, roles) == ""


@pytest.mark.parametrize(
    "text",
    [
        "/no_think",
        "/think what is 2 + 2? /no_think",
        "\n  spaces \n",
        '"quoted" \\ {{ braces }}',
        "<tool_response>x</tool_response>",
        "",
    ],
)
def test_any_question_passes(tokenizer: Tokenizer, text: str) -> None:
    """Whatever the template makes of its words."""
    assert render_chat(Chat((Message("system", text), Message("user", text))), tokenizer)


@pytest.mark.parametrize("text", ["<think>\nwhy\n</think>\n\nyes", "<think></think>", "  yes  ", ""])
def test_any_earlier_answer_passes(tokenizer: Tokenizer, text: str) -> None:
    """Its reasoning may go."""
    assert render_chat(Chat((*turns("u"), Message("assistant", text), *turns("u"))), tokenizer)


@pytest.mark.parametrize("text", ["It is", "<think>\nwhy\n</think>\n\nIt is", "<think>why</think>It is"])
def test_an_answer_is_continued(tokenizer: Tokenizer, text: str) -> None:
    """The prompt ends at its last words, however its reasoning is written."""
    chat = Chat((*turns("u"), Message("assistant", text)), continue_final_message=True)
    assert render_chat(chat, tokenizer).endswith("It is")


# What some families lose or refuse, by the order of the roles.
ODD: dict[str, dict[str, int | None]] = {
    "NVIDIA-Nemotron-Nano-v2": {"uasu": 2, "ut": None, "uatt": None, "uu": None},
    "Qwen-Qwen3-0.6B": {"uasu": None, "sdu": None, "ut": None},
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": {"sdu": 0, "uasu": None, "sudu": 0},
    "deepseek-ai-DeepSeek-V3.1": {"sdu": None},
    "microsoft-Phi-3.5-mini-instruct": {"uat": 2, "sdu": None},
    "mistralai-Mistral-Nemo-Instruct-2407": {"uu": 1, "uasu": 2, "uat": 2, "sua": 0},
    "Mistral-Small-3.2-24B-Instruct-2506": {"uu": 1, "uasu": 2, "uat": 2, "sdu": 1},
    "openai-gpt-oss-120b": {"sdu": 1, "uadu": 2, "uat": 2, "uu": None},
    "unsloth-mistral-Devstral-Small-2507": {"sdu": None, "uat": None},
}


def test_lost_and_refused_turns_are_named(name: str, tokenizer: Tokenizer) -> None:
    """And the same turns pass where the template renders them."""
    found = {roles: refused_position(tokenizer, roles) for roles in ODD.get(name, {})}
    assert found == {
        roles: "" if position is None else f"chat.messages[{position}].role"
        for roles, position in ODD.get(name, {}).items()
    }
