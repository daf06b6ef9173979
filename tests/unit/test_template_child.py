"""A template in a process of its own: its limits, what is left of it when it passes one, and what it is given."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.errors import Draining, InvalidField, UnsupportedField
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake.chat import render_chat
from mlx_grpc.service.intake.templates import frames, size
from mlx_grpc.service.intake.templates.child_template import MAX_TEMPLATE_CHARS, ChildTemplate
from mlx_grpc.service.intake.templates.frames import MAX_FRAME_BYTES, BadFrame
from mlx_grpc.service.intake.templates.process import Limits
from mlx_grpc.service.intake.templates.size import Size
from tests.helpers.templates import ECHO

USER = [("user", "hi")]
HI = "<|user|>hi<|end|><|assistant|>"
LONG_LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
BREAKING = (
    "{% if loop %}" + LONG_LOOP + "{% endif %}"
    "{% if copies %}{{ 'a' * copies }}{% endif %}"
    "{% if power %}{{ 9 ** (9 ** power) }}{% endif %}" + ECHO
)
"""Passes a limit when an argument says so."""
QUICK = Limits(probe_seconds=2, render_seconds=0.2)


@pytest.fixture(name="template")
def _template() -> Iterator[ChildTemplate]:
    template = ChildTemplate(BREAKING, {}, QUICK)
    yield template
    template.close()
    assert not template.pids


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ('{"loop": true}', "it takes longer than 0.2 s"),
        ('{"power": 8}', "it takes longer than 0.2 s"),
        ('{"copies": 3000000000}', "it takes more than 256 MiB of memory"),
        ('{"copies": 4194305}', "it writes more than 4194304 characters"),
    ],
    ids=["loop", "power", "memory", "text"],
)
def test_a_limit_stops_one_chat(template: ChildTemplate, args: str, why: str) -> None:
    """It is told which, soon, and the next chat is rendered."""
    began = time.monotonic()
    assert template.write(USER, args, continued=False).stopped == why
    assert time.monotonic() - began < 10
    assert template.write(USER, "", continued=False).text == HI


def test_memory_of_this_process_does_not_grow(template: ChildTemplate) -> None:
    """The text that is too large is never here."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc to read the memory from")
    before = _resident_bytes()
    template.write(USER, '{"copies": 3000000000}', continued=False)
    template.write(USER, '{"copies": 100000000}', continued=False)
    assert _resident_bytes() - before < 50e6


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_limit_is_the_chats_fault() -> None:
    """The client is told on the field `chat`."""

    class Tokenizer:
        chat_template = ChildTemplate(BREAKING, {}, QUICK)

    with pytest.raises(InvalidField, match=r"stopped: it takes longer than 0\.2 s") as caught:
        render_chat(Chat((Message("user", "hi"),), '{"power": 8}'), Tokenizer())  # type: ignore[arg-type]
    assert caught.value.field == "chat"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (LONG_LOOP, "it takes longer than 2 s"),
        ("{{ 'a' * 3*10**9 }}", "it takes more than 256 MiB of memory"),
        ("x" * (MAX_TEMPLATE_CHARS + 1), "it has more than 1048576 characters"),
    ],
    ids=["endless", "memory", "long"],
)
def test_a_template_that_passes_a_limit_when_it_is_tried_is_not_used(source: str, why: str) -> None:
    """A chat is a field that such a model cannot honour, and no process is left."""
    template = ChildTemplate(source, {}, QUICK)
    assert (template.fault, template.pids) == (why, [])

    class Tokenizer:
        chat_template = template

    with pytest.raises(UnsupportedField, match=why) as caught:
        render_chat(Chat((Message("user", "hi"),)), Tokenizer())  # type: ignore[arg-type]
    assert caught.value.field == "chat"


def test_a_killed_process_comes_back(template: ChildTemplate) -> None:
    """A chat that comes then is rendered: it was not at fault."""
    (pid,) = template.pids
    os.kill(pid, signal.SIGKILL)
    assert template.write(USER, "", continued=False).text == HI
    assert pid not in template.pids
    assert not lives(pid)


def test_others_are_not_touched(template: ChildTemplate) -> None:
    """While one chat runs into its limit, another is rendered in a process of its own, and the first's is replaced."""
    ends: list[str] = []
    slow = threading.Thread(target=lambda: ends.append(template.write(USER, '{"loop": true}', False).stopped))
    slow.start()
    while slow.is_alive():
        assert template.write(USER, "", continued=False).text == HI
    slow.join()
    assert ends == ["it takes longer than 0.2 s"]
    assert 1 <= len(template.pids) <= 2


def test_chats_with_arguments_leave_the_ready_process_to_others(template: ChildTemplate) -> None:
    """A chat that comes after one that ran into its limit does not wait for a process to start."""
    ready = template.pids
    for _ in range(2):
        assert template.write(USER, '{"loop": true}', continued=False).stopped
        assert template.pids == ready
        assert template.write(USER, "", continued=False).text == HI


def test_a_rendering_that_nobody_wants_ends_soon() -> None:
    """Long before its limit, which is an hour here."""
    template = ChildTemplate(BREAKING, {}, Limits(render_seconds=3600))
    began = time.monotonic()
    assert template.write(USER, '{"loop": true}', continued=False, has_left=lambda: True).stopped
    assert time.monotonic() - began < 10
    template.close()


def test_closing_ends_what_runs() -> None:
    """The chat that is being rendered is refused, so are all later ones, and no process is left."""
    template = ChildTemplate(BREAKING, {}, Limits(render_seconds=3600))
    (pid,) = template.pids
    ends: list[BaseException] = []

    def render() -> None:
        try:
            template.write(USER, '{"loop": true}', continued=False)
        except Draining as error:
            ends.append(error)

    busy = threading.Thread(target=render)
    busy.start()
    while not (others := [other for other in template.pids if other != pid]) or _processor_seconds(others[0]) < 0.1:
        assert busy.is_alive()
        time.sleep(0.01)
    template.close()
    busy.join()
    assert len(ends) == 1
    assert not [one for one in (pid, *others) if lives(one)]
    with pytest.raises(Draining):
        template.write(USER, "", continued=False)


def _processor_seconds(pid: int) -> float:
    told = subprocess.run(["ps", "-o", "cputimes=", "-p", str(pid)], capture_output=True, text=True, check=False)
    if told.stdout.strip():
        return float(told.stdout)
    return 1.0  # this ps does not say: it has had time to start


def test_one_that_nobody_holds_closes_itself() -> None:
    """As when a model's loading is given up in its midst."""
    template = ChildTemplate(ECHO, {})
    (pid,) = template.pids
    del template
    gc.collect()
    assert not lives(pid)


def test_the_process_ends_with_the_server() -> None:
    """However that ends."""
    program = (
        "import os, sys; from mlx_grpc.service.intake.templates.child_template import ChildTemplate;"
        "template = ChildTemplate('x', {}); print(template.pids[0], flush=True); os.kill(os.getpid(), 9)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    pid = int(told.stdout)
    deadline = time.monotonic() + 10
    while lives(pid) and _state_of(pid) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _state_of(pid: int) -> str:
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip()[:1] or "Z"


def test_the_process_has_nothing_to_give_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the server's tokens in its environment, nor libraries that the template does not need."""
    if not os.path.exists("/proc/self/environ"):
        pytest.skip("no /proc to read the environment from")
    monkeypatch.setenv("HF_TOKEN", "secret")
    template = ChildTemplate(ECHO, {})
    (pid,) = template.pids
    with open(f"/proc/{pid}/environ", "rb") as environ:
        assert b"secret" not in environ.read()
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        assert not [line for line in maps if "numpy" in line or "tokenizers" in line or "grpc" in line.split("/")[-1]]
    template.close()


def test_halves_of_characters_and_large_texts_cross_the_pipe(template: ChildTemplate) -> None:
    """Whatever JSON can carry comes back as it was."""
    large = "🦊" * 300_000
    assert large in template.write([("user", large)], "", continued=False).text
    half = ChildTemplate("{{ messages[0].content }}{{ mood }}", {})
    assert half.write(USER, r'{"mood": "\ud800"}', continued=False).text == "hi\ud800"


def test_special_tokens_and_arguments_reach_the_template() -> None:
    """An argument wins over a special token of its name, as in transformers."""
    template = ChildTemplate("{{ bos_token }}{{ messages[0].content }}", {"bos_token": "<s>"})
    assert template.write(USER, "", continued=False).text == "<s>hi"
    assert template.write(USER, '{"bos_token": "x"}', continued=False).text == "xhi"


@pytest.mark.parametrize(
    "head",
    [
        b"", b"{", b"[]", b"{}", b"1" * 5000, b"[" * 100_000, b"\xff", b'{"text_bytes": [1]}', b'{"text_bytes": [-1]}',
        b'{"text_bytes": [true]}', b'{"text_bytes": 1}', b'{"text_bytes": ["1"]}',
    ],
    ids=lambda head: repr(head[:20]),
)  # fmt: skip
def test_what_is_not_a_message_is_not_believed(head: bytes) -> None:
    """A template that has got out of its sandbox may say anything."""
    with pytest.raises(BadFrame):
        frames.unpack(len(head).to_bytes(4, "big") + head)
    with pytest.raises(BadFrame):
        frames.unpack(head)


@given(
    fields=st.dictionaries(st.text(max_size=8).filter(lambda name: name != "text_bytes"), st.integers() | st.text()),
    texts=st.lists(st.text(alphabet=st.characters(codec=None))),
)
def test_messages_come_back(fields: dict[str, object], texts: list[str]) -> None:
    """With any characters, halves of surrogate pairs among them."""
    frame = b"".join(frames.pack(fields, texts))
    assert frames.body_bytes(frame[:4]) == len(frame) - 4
    assert frames.unpack(frame[4:]) == (fields, texts)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    """And nothing else is raised."""
    with contextlib.suppress(BadFrame):
        frames.unpack(body)


def test_frames_are_bounded_both_ways() -> None:
    """Before they are sent, and before they are read."""
    with pytest.raises(BadFrame):
        frames.body_bytes((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(BadFrame):
        frames.pack({}, ["x" * MAX_FRAME_BYTES])


def test_growth_is_seen_where_the_kernel_does_not_bound_it() -> None:
    """As on macOS: by asking for the process's size."""
    watched = Size(os.getpid(), 1, kernel_bounds=False)
    assert watched.is_too_large()
    watched = Size(os.getpid(), 1 << 40, kernel_bounds=False)
    watched.watch()
    assert not watched.is_too_large()
    assert not Size(os.getpid(), 1, kernel_bounds=True).is_too_large()


@pytest.mark.skipif(not size.KERNEL_BOUNDS_MEMORY, reason="this system's kernel does not bound it")
def test_the_watch_ends_a_process_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the kernel taken away."""
    monkeypatch.setattr(size, "KERNEL_BOUNDS_MEMORY", False)
    monkeypatch.setattr(Size.__init__, "__defaults__", (False,))
    template = ChildTemplate(BREAKING, {}, Limits(render_seconds=20))
    assert template.write(USER, "", continued=False).text == HI
    monkeypatch.setattr(size, "resident_bytes", lambda pid: 1 << 40)
    assert template.write(USER, '{"power": 8}', continued=False).stopped == "it takes more than 256 MiB of memory"
    monkeypatch.undo()
    template.close()
