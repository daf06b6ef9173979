"""Chat templates with random damage: whatever is in them, loading ends, and so does a chat."""

from __future__ import annotations

import random
import time

import pytest

from mlx_grpc.service.intake.templates.child_template import ChildTemplate
from mlx_grpc.service.intake.templates.process import Limits
from tests.helpers import templates

SOURCES = [source for name, source in vars(templates).items() if name.isupper() and isinstance(source, str)]
PIECES = (
    *("{%", "%}", "{{", "}}", "{#", "#}", "|", "for", "in", "if", "else", "endif", "endfor", "macro", "set", "(", ")"),
    *("[", "]", "'", "\\", ".", "*", "**", "10", "999999999", "range", "messages", "loop", "m", ".content", "~", ":"),
    *("%d", "namespace", "raise_exception", "\0", "\ud800", "🦊", "\n", "tojson", "generation", "import", "__class__"),
)


def mutated(source: str, draw: random.Random) -> str:
    """With some pieces put in, taken out, doubled or exchanged."""
    text = source
    for _ in range(draw.randint(1, 6)):
        start = draw.randint(0, len(text))
        end = min(len(text), start + draw.randint(0, 12))
        kind = draw.randrange(4)
        if kind == 0:
            text = text[:start] + draw.choice(PIECES) + text[start:]
        elif kind == 1:
            text = text[:start] + text[end:]
        elif kind == 2:
            text = text[:end] + text[start:]
        else:
            text = text[:start] + draw.choice(PIECES) + text[end:]
    return text


@pytest.mark.prove
def test_mutated_templates_end(full_size: bool) -> None:
    """Each is loaded, and used for a chat where it has no fault; no process is left, and none takes long."""
    draw = random.Random(0)
    limits = Limits(probe_seconds=1, render_seconds=0.5)
    longest_seconds = 0.0
    for _ in range(10_000 if full_size else 20):
        source = mutated(draw.choice(SOURCES), draw)
        began_seconds = time.monotonic()
        template = ChildTemplate(source, {"bos_token": "<s>"}, limits)
        if not template.fault:
            template.write([("user", "hi"), ("assistant", "yes"), ("user", "hi")], '{"mood": "x"}', continued=False)
        template.close()
        assert not template.pids
        longest_seconds = max(longest_seconds, time.monotonic() - began_seconds)
    assert longest_seconds < 30
