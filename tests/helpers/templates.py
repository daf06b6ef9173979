"""Small chat templates, each with one habit of published ones."""

from __future__ import annotations

from pathlib import Path

from mlx_grpc.service.intake.tokenizer import Tokenizer, load_tokenizer
from tests.helpers.tokenizer import byte_level, make_folder

_OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def _for_each(body: str) -> str:
    return "{% for m in messages %}" + body + "{% endfor %}" + _OPEN


ECHO = _for_each("<|{{ m.role }}|>{{ m.content }}<|end|>")
"""Writes any role by its name."""
SILENT = _for_each(
    "{% if m.role in ['system', 'user', 'assistant'] %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}"
)
"""Leaves out the roles that it does not know."""
STRICT = _for_each(
    "{% if m.role in ['user', 'assistant'] %}<|{{ m.role }}|>{{ m.content }}<|end|>"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}"
)
"""Raises for the roles that it does not know, also for system."""
NAMELESS = _for_each(
    "{% if m.role in ['system', 'user', 'assistant'] %}<|{{ m.role }}|>{% endif %}{{ m.content }}<|end|>"
)
"""Writes the content of roles that it does not know, with no mark of who speaks."""
DEVELOPER = _for_each(
    "{% if m.role == 'developer' %}<|instructions|>{{ m.content }}<|end|>"
    "{% elif m.role != 'tool' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}"
)
"""Knows a developer, and no tool."""
PARTS = _for_each("<|{{ m.role }}|>{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}<|end|>")
"""Takes typed parts, and finds nothing in a string."""
EITHER = _for_each(
    "<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}<|end|>"
)
"""Takes strings and typed parts."""
USER_PARTS = _for_each(
    "<|{{ m.role }}|>{% if m.role == 'user' %}{% for p in m.content %}{{ p.text }}{% endfor %}"
    "{% else %}{{ '' + m.content }}{% endif %}<|end|>"
)
"""Takes typed parts from the user, and strings from all others."""
SYSTEM_FIRST = _for_each("{% if loop.first or m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}")
"""Leaves out a system turn that is not the first."""
LAST_SYSTEM = (
    "{% set ns = namespace(system='') %}{% for m in messages if m.role == 'system' %}{% set ns.system = m.content %}"
    "{% endfor %}{{ ns.system }}" + _for_each("{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endif %}")
)
"""Keeps only the last system turn."""
LAST_QUESTION = "<|user|>{{ messages[-1].content }}<|end|>" + _OPEN
"""Sees the last turn only."""
ALTERNATING = _for_each(
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>"
)
"""Wants user and assistant in turn."""
MERGING = (
    "{% for m in messages %}{% if loop.first or m.role != messages[loop.index0 - 1].role %}<|{{ m.role }}|>{% endif %}"
    "\n{{ m.content }}{% endfor %}" + _OPEN
)
"""Puts turns of one role together."""
TOOL_LATER = _for_each(
    "{% if m.role != 'tool' or (loop.index0 and messages[loop.index0 - 1].role == 'assistant') %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}"
)
"""Leaves out a tool's turn that does not follow the assistant's."""
ALTERING = _for_each(
    "<|{{ m.role }}|>{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1].strip() }}"
    "{% elif m.role == 'tool' %}{{ m.content | tojson }}"
    "{% else %}{{ m.content.replace('/no_think', '') | trim | upper }}{% endif %}<|end|>"
)
"""Trims, quotes, splits and capitalises what is said, and takes out control words and reasoning."""
ON_DEMAND = _for_each("{% if m.role != 'system' or with_system %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}")
"""Leaves system turns out, unless an argument asks for them."""
READING = _for_each(
    "{% if not m.content.startswith('p') %}{{ raise_exception('begin with p') }}{% endif %}"
    "{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}"
)
"""Refuses turns for what they say, and leaves system turns out."""


def with_template(folder: Path, template: str | None, **special_tokens: str) -> Tokenizer:
    """A tokenizer with this template, in a folder of its own below `folder`."""
    own = folder / f"template-{len(list(folder.iterdir()))}"
    own.mkdir()
    return load_tokenizer(str(make_folder(own, byte_level(), template, **special_tokens)))
