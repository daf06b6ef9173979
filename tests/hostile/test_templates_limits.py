"""Templates that somebody wrote to bring the server down: each ends at a limit or in an error, in a process that is not
the server's, and the server does not notice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlx_grpc.service.intake.templates.child_template import ChildTemplate
from mlx_grpc.service.intake.templates.process import Limits
from tests.helpers.templates import ECHO

TIME, MEMORY = "it takes longer than", "of memory"
ERROR = "an error"
USER = [("user", "hi")]
MORE_BYTES = 50_000_000
"""What this process may have more afterwards; the texts that are asked for have gigabytes."""

BOMBS = {
    "repeat": ("{{ 'a' * 3*10**9 }}", MEMORY),
    "repeat-list": ("{{ [1] * 10**10 }}", MEMORY),
    "power": ("{{ 9**(9**8) }}", TIME),
    "power-tower": ("{{ 9**(9**(9**9)) % 7 }}", TIME),
    "shift": ("{% set ns = namespace(x=7) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}", TIME),
    "doubling": (
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        MEMORY,
    ),
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", TIME),
    "loops-that-write": (
        "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxx{% endfor %}{% endfor %}",
        None,
    ),
    "macros": ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", ERROR),
    "macros-that-branch": (
        "{% macro again(n) %}{% if n %}{{ again(n - 1) }}{{ again(n - 1) }}{% endif %}{% endmacro %}{{ again(99) }}",
        TIME,
    ),
    "recursive-loop": ("{% for m in [[[[1]]]] recursive %}{{ loop([m]) }}{% endfor %}", ERROR),
    "percent": ("{{ '%1000000000d' % 1 }}", MEMORY),
    "format": ("{{ '{:>1000000000}'.format(1) }}", MEMORY),
    "center": ("{{ 'a' | center(10**9) }}", MEMORY),
    "ljust": ("{{ 'a'.ljust(10**9) }}", MEMORY),
    "zfill": ("{{ '1'.zfill(10**9) }}", MEMORY),
    "expandtabs": ("{{ '\\t'.expandtabs(10**9) }}", MEMORY),
    "join": ("{{ range(99999) | join('a' * 99999) }}", MEMORY),
    "batch": ("{{ range(9) | batch(10**10, 'x') | list }}", MEMORY),
    "slice": ("{{ range(9) | slice(10**9) | list }}", None),
    "indent": ("{{ ('a\\n' * 99999) | indent(10**6) }}", MEMORY),
    "replace": ("{{ ('a' * 10**5) | replace('a', 'b' * 10**5) }}", MEMORY),
    "lipsum": ("{{ lipsum(n=10**5) }}", None),
    "urlize": ("{{ (('a' * 99 + '@') * 10**5) | urlize }}", None),
    "sort": ("{% for i in range(99999) %}{{ range(99999) | sort(reverse=true) | length }}{% endfor %}", TIME),
    "cyclic": ("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", None),
    "cyclic-json": ("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns | tojson }}", ERROR),
    "digits": ("{% set n = 10000 %}{{ (10**n) | string }}", ERROR),
}
SYNTAX = {
    "ifs": "{% if 1 %}" * 100_000,
    "brackets": "{{ " + "(" * 500_000,
    "lists": "{{ " + "[" * 500_000 + "]" * 500_000 + " }}",
    "minuses": "{{ " + "-" * 900_000 + "1 }}",
    "ands": "{{ " + "1 and " * 100_000 + "1 }}",
    "filters": "{{ 1" + "|abs" * 200_000 + " }}",
    "sums": "{{ 1" + "+1" * 400_000 + " }}",
    "dots": "{{ a" + ".a" * 400_000 + " }}",
    "text": "{" * 1_000_000,
    "comments": "{#" * 500_000,
    "tags": "{{ 1 }}" * 140_000,
    "macros": "{% macro a() %}" * 60_000,
    "broken-blocks": "{%" * 500_000,
}


def resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0  # a Mac: there the time alone is looked at


def tried(source: str, limits: Limits) -> str:
    """How the template ends when it is loaded and, where it is good then, when a chat is rendered."""
    before_bytes, began_seconds = resident_bytes(), time.monotonic()
    template = ChildTemplate(source, {}, limits)
    try:
        written = None if template.fault else template.write(USER, "", continued=False)
    finally:
        template.close()
    most_seconds = 10 * (limits.probe_seconds + limits.render_seconds) + 30
    assert time.monotonic() - began_seconds < most_seconds
    assert resident_bytes() - before_bytes < MORE_BYTES
    if written is None:
        return template.fault
    return written.stopped or (ERROR if written.error else "written")


@pytest.fixture(name="limits")
def _limits(full_size: bool) -> Limits:
    """The server's own, or shorter ones."""
    return Limits() if full_size else Limits(probe_seconds=0.5, render_seconds=0.2)


@pytest.mark.prove
@pytest.mark.parametrize(("source", "expected"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_ends_at_its_limit(source: str, expected: str | None, limits: Limits) -> None:
    """Where the template is tried when the model is loaded. Which limit comes first may differ by machine for some."""
    end = tried(source, limits)
    if expected in (TIME, MEMORY) and (TIME in end or MEMORY in end):
        return
    assert expected is None or expected in end
    assert end != "written" or expected is None


@pytest.mark.prove
@pytest.mark.parametrize(("source", "expected"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_that_waits_for_a_chat_ends_there(source: str, expected: str | None, limits: Limits) -> None:
    """It behaves while it is tried. The one chat is refused, and the next is rendered. What is constant jinja computes
    when it compiles, so that the template has a fault then."""
    template = ChildTemplate("{% if now %}" + source + "{% else %}" + ECHO + "{% endif %}", {}, limits)
    if template.fault:
        assert TIME in template.fault
        return
    written = template.write(USER, '{"now": true}', continued=False)
    assert written.stopped or written.error or expected is None
    assert template.write(USER, "", continued=False).text == "<|user|>hi<|end|><|assistant|>"
    template.close()


@pytest.mark.prove
@pytest.mark.parametrize("source", SYNTAX.values(), ids=SYNTAX)
def test_syntax_that_is_too_much_ends(source: str, limits: Limits) -> None:
    """While it is parsed or compiled: in an error, or at a limit."""
    assert len(source) <= 1024 * 1024
    assert tried(source, limits)


def test_the_processes_memory_does_not_matter_to_the_next(limits: Limits) -> None:
    """A hundred chats that fill it, one after the other."""
    template = ChildTemplate("{% if now %}{{ 'a' * 3*10**9 }}{% endif %}" + ECHO, {}, limits)
    before_bytes = resident_bytes()
    for _ in range(10):
        assert MEMORY in template.write(USER, '{"now": true}', continued=False).stopped
    assert template.write(USER, "", continued=False).text
    assert len(template.pids) == 1
    assert resident_bytes() - before_bytes < MORE_BYTES
    template.close()
