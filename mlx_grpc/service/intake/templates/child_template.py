"""A model's own chat template, which runs in processes made for it.

A template is a program that somebody else wrote. It gets a process of its own, with limits of time, memory and size;
where it passes one, the process ends, the chat that it rendered is refused, and the next has another process. Each
thread that renders has a process for itself meanwhile, so that no other chat is lost with it. Chats with template
arguments, which may lead a template where it takes long, have processes of their own: they do not take the one that is
ready for others, who would wait until another has started.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

from mlx_grpc.errors import Draining, QueueFull
from mlx_grpc.service.intake.templates.chat_template import Turn, Written, nobody_left
from mlx_grpc.service.intake.templates.frames import BadFrame, Message
from mlx_grpc.service.intake.templates.process import Limits, Lost, Stopped, TemplateProcess
from mlx_grpc.service.intake.templates.traits import UNKNOWN, TemplateTraits, one_line, plain_traits, traits_of_plain

MAX_TEMPLATE_CHARS = 1024 * 1024
SPARE_SECONDS = 60.0
"""A second process that nobody needed for so long is ended."""
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)


class ChildTemplate:
    """See `chat_template.Template`. Building it tries the template in its first process, and blocks meanwhile.

    Close it; one that nobody holds any more closes itself. Raises OSError where no process can be had.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], limits: Limits | None = None) -> None:
        first = Message({"special_tokens": dict(special_tokens), "traits": None}, [source])
        self._plain = processes = _Processes(first, limits or Limits(), keeps_one=True)
        self._argued = argued = _Processes(first, limits or Limits(), keeps_one=False)
        self._finalizer = weakref.finalize(self, _close, processes, argued)
        if sum(map(len, (source, *special_tokens.values()))) > MAX_TEMPLATE_CHARS:
            self.traits, self.fault = UNKNOWN, f"it has more than {MAX_TEMPLATE_CHARS} characters"
        else:
            self.traits, self.fault = processes.tried()
        if self.fault:
            self.close()

    @property
    def pids(self) -> list[int]:
        """The processes that it has now."""
        return self._plain.pids + self._argued.pids

    def close(self) -> None:
        """End its processes; chats that are being rendered are refused, and all later ones."""
        self._finalizer()

    def write(
        self, turns: Sequence[Turn], args_json: str, continued: bool, has_left: Callable[[], bool] = nobody_left
    ) -> Written:
        """See `Template`. Raises Draining when it is closed meanwhile, QueueFull where no process can be had."""
        fields = {"roles": [role for role, _ in turns], "continued": continued}
        request = Message(fields, [args_json, *(content for _, content in turns)])
        processes = self._argued if args_json else self._plain
        try:
            try:
                return _ask(processes, request, has_left)
            except Lost:  # from outside, most likely: this chat has not been tried to its end
                return _ask(processes, request, has_left)
        except Stopped as error:
            return Written(stopped=str(error))
        except Lost as error:
            return Written(stopped=f"its process was lost: {error}")
        except BadFrame as error:
            return Written(stopped=str(error))
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise QueueFull(f"no process can be had to render the chat: {why}", retry_after_seconds=1.0) from error


def _close(*pools: _Processes) -> None:
    for processes in pools:
        processes.close()


def _ask(processes: _Processes, request: Message, has_left: Callable[[], bool]) -> Written:
    process = processes.take()
    try:
        answer = process.ask(request, has_left)
        written = _written(answer)
    except BaseException:
        processes.discard(process)
        raise
    if answer.fields.get("worn"):
        processes.discard(process)
    else:
        processes.give_back(process)
    return written


def _written(answer: Message) -> Written:
    """Raises Lost for an answer that our own program does not give."""
    lost, error, stopped = (answer.fields.get(name) for name in ("lost", "error", "stopped"))
    text = answer.texts[0] if answer.texts else ""
    error, stopped = error or "", stopped or ""
    if isinstance(error, str) and isinstance(stopped, str) and (lost is None or type(lost) is int):
        return Written(text, lost, one_line(error), one_line(stopped))
    raise Lost("it said what is not an answer")


def _tried(process: TemplateProcess) -> tuple[TemplateTraits, str]:
    try:
        answer = process.introduction(nobody_left).fields
        if "stopped" in answer:
            return UNKNOWN, one_line(str(answer["stopped"]))
        return traits_of_plain(answer["traits"]), ""
    except Stopped as error:
        return UNKNOWN, str(error)
    except Lost as error:
        return UNKNOWN, f"its process was lost: {error}"
    except _UNREADABLE as error:
        return UNKNOWN, f"its process said what is not a message: {error}"


class _Processes:
    """Processes of one template. Idle ones are taken again, the last used first. `keeps_one`: another is started as
    soon as the last has ended."""

    def __init__(self, first: Message, limits: Limits, *, keeps_one: bool) -> None:
        self._keeps_one = keeps_one
        self._first = first
        self._limits = limits
        self._lock = threading.Lock()
        self._idle: list[tuple[TemplateProcess, float]] = []
        self._all: set[TemplateProcess] = set()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        with self._lock:
            return [process.pid for process in self._all]

    def tried(self) -> tuple[TemplateTraits, str]:
        """What the template does, or why it cannot be used. The process in which this was seen is kept, and others that
        follow are told."""
        process = self.take()
        traits, fault = _tried(process)
        if fault:
            process.close()
        else:
            self._first.fields["traits"] = plain_traits(traits)
            self.give_back(process)
        return traits, fault

    def take(self) -> TemplateProcess:
        """For one thread, which gives it back or discards it. Raises Draining when closed."""
        with self._lock:
            if self._idle:
                return self._idle.pop()[0]
        return self._started()

    def give_back(self, process: TemplateProcess) -> None:
        """It is good for another chat."""
        now_seconds = time.monotonic()
        with self._lock:
            spare = [one for one, since in self._idle if since < now_seconds - SPARE_SECONDS]
            self._idle = [(one, since) for one, since in self._idle if one not in spare]
            if self._closed:
                spare.append(process)
            else:
                self._idle.append((process, now_seconds))
            self._all.difference_update(spare)
        for one in spare:
            one.close()

    def discard(self, process: TemplateProcess) -> None:
        """It is not used again; where it was the last that is to be kept, another begins to start."""
        process.close()
        with self._lock:
            self._all.discard(process)
            alone = self._keeps_one and not self._all and not self._closed
        if alone:
            with contextlib.suppress(OSError, Draining):
                self.give_back(self._started())

    def close(self) -> None:
        """End all."""
        with self._lock:
            self._closed = True
            idle = {process for process, _ in self._idle}
            busy, self._all, self._idle = self._all - idle, set(), []
        for process in idle:
            process.close()
        for process in busy:
            process.kill()

    def _started(self) -> TemplateProcess:
        with self._lock:
            if self._closed:
                raise Draining("the model is being unloaded")
            process = TemplateProcess(self._first, self._limits)
            self._all.add(process)
            return process
