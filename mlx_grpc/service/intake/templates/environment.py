"""Chat templates as transformers renders them, without transformers, whose import takes seconds and 130 MB.

The environment is the one of its `chat_template_utils`: the same sandbox, options, filters, functions and tags. A test
compares the two, and what they write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.utils
from jinja2 import nodes
from jinja2.parser import Parser

PassedMessage = Mapping[str, Any]


class JinjaTemplate:
    """One model's template, ready to render. What is wrong with its source is raised by each rendering; a lack
    of memory at once.

    `special_tokens`: their texts by the names that templates know them by, such as `bos_token`.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._special_tokens = special_tokens
        self._broken: Exception | None = None
        try:
            self._template = make_environment().from_string(source)
        except MemoryError:
            raise
        except Exception as error:  # what jinja's parser and Python's compiler raise differs
            self._broken = error

    def __call__(self, messages: Sequence[PassedMessage], args: Mapping[str, Any], add_generation_prompt: bool) -> str:
        """The conversation as the template writes it. Raises anything."""
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        variables = {**self._special_tokens, **args}
        return self._template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **variables
        )


def make_environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """A sandbox with what chat templates expect to find."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = TemplateDict()
    environment.globals["namespace"] = TemplateNamespace
    return environment


class GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant says, for training. Here its body is written as it is."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call, which gives its body a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Any) -> str:
        text: str = caller()
        return text


class TemplateDict:
    """`dict`, without its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class TemplateNamespace(jinja2.utils.Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a name in it may be `self`
        self, *rest = args
        names = dict(*rest, **kwargs)
        for name in names:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no names with an underscore in front: {name[:64]!r}")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
