"""Templates are rendered here as transformers renders them, which is what their authors try them with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from mlx_grpc.service.intake.templates.environment import JinjaTemplate, make_environment

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "chat_templates"
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "be kind & <brief>"},
    {"role": "user", "content": " hi \n"},
    {"role": "assistant", "content": "<think>why</think>\n\nyes, 'quoted' \"text\""},
    {"role": "user", "content": "Größe 東京 🦊"},
]
FEATURES = {
    "tojson": "{{ messages | tojson }} {{ messages[0] | tojson(indent=2, sort_keys=True) }}"
    "{{ [1, none, true] | tojson(separators=(',', ':'), ensure_ascii=True) }}",
    "dict": "{{ dict(a=1) }}{{ dict.fromkeys(['x'], 2) }}{{ dict.mro }}",
    "namespace": "{% set ns = namespace(a=1, self=2) %}{% set ns.a = 3 %}{{ ns.a }}{{ ns.self }}{{ ns }}",
    "namespace-underscore": "{% set ns = namespace(_a=1) %}",
    "generation": "a\n{% generation %}\n b{{ messages[0].content }}\n{% endgeneration %}\nc",
    "loop-controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{{ m.role }}{% break %}{% endfor %}",
    "blocks": "  {% if true %}\n  x\n  {%- endif %}\n\n{# comment #}\ny\n",
    "undefined": "{{ nothing }}{{ messages[0].nothing }}{{ 'x' if not tools and not documents and tools is none }}",
    "undefined-attribute": "{{ nothing.at.all }}",
    "raise": "{{ raise_exception('not this') }}",
    "strftime": "{{ strftime_now('%Y') }}",
    "filters": "{{ messages | map(attribute='role') | join(',') | upper | trim | length }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'ab' | center(9) | replace(' ', '.') }}",
    "macros": "{% macro one(m) %}[{{ m.role }}]{% endmacro %}{% for m in messages %}{{ one(m) }}{% endfor %}",
    "sandbox": "{{ ''.__class__ }}",
    "immutable": "{{ messages.append(1) }}",
    "range": "{{ range(1000000) | list }}",
    "generation-prompt": "{{ add_generation_prompt }}{{ bos_token }}{{ eos_token }}{{ mood }}",
    "broken": "{% for m in %}",
}


def outcome(render: Any) -> str:
    """What is written, or the kind of error and its words."""
    try:
        return str(render())
    except Exception as error:  # a template can raise anything
        return f"{type(error).__name__}: {error}"


def theirs(source: str, messages: list[dict[str, Any]], opened: bool) -> str:
    def render() -> str:
        texts, _ = chat_template_utils.render_jinja_template(
            [messages], chat_template=source, add_generation_prompt=opened, mood="calm", **SPECIAL_TOKENS
        )
        return str(texts[0])

    return outcome(render)


def ours(source: str, messages: list[dict[str, Any]], opened: bool) -> str:
    return outcome(lambda: JinjaTemplate(source, SPECIAL_TOKENS)(messages, {"mood": "calm"}, opened))


@pytest.mark.parametrize("source", FEATURES.values(), ids=FEATURES)
def test_features_are_the_same(source: str) -> None:
    """Each thing that transformers adds to jinja, and what templates use most. Only the words of one refusal differ."""
    found, expected = ours(source, TURNS, True), theirs(source, TURNS, True)
    if "SecurityError" in expected and "underscore" in expected:
        assert found.startswith("SecurityError: ")
        return
    assert found == expected


def test_the_environment_is_the_same() -> None:
    """A filter, function, test, tag or option that transformers adds is missed here."""
    here, there = make_environment(), chat_template_utils._compile_jinja_template("x").environment
    assert here.filters.keys() == there.filters.keys()
    assert here.globals.keys() == there.globals.keys()
    assert here.tests.keys() == there.tests.keys()
    tags = [{tag for one in environment.iter_extensions() for tag in one.tags} for environment in (here, there)]
    assert tags[0] == tags[1]
    options = ["trim_blocks", "lstrip_blocks", "keep_trailing_newline", "undefined", "finalize", "autoescape"]
    options += ["policies", "sandboxed", "intercepted_binops", "optimized"]
    assert {name: getattr(here, name) for name in options} == {name: getattr(there, name) for name in options}
    assert type(here) is type(there)


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no published templates in {FOLDER}")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_published_templates_write_the_same(path: Path, opened: bool, turns: int) -> None:
    """Conversations of each length, open and closed."""
    source = path.read_text(encoding="utf-8")
    messages = TURNS[-turns:]
    assert ours(source, messages, opened) == theirs(source, messages, opened)
