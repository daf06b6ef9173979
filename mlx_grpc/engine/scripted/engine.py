"""The scripted engine: the batch's protocol without a model, for tests of everything around it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from mlx_grpc.engine.messages import (
    LENGTH,
    RUNNING,
    STOPPED,
    Load,
    Loaded,
    Row,
    RowFailed,
    RowPrefill,
    RowToken,
    Step,
)
from mlx_grpc.engine.protocol import LoadError, row_problem
from mlx_grpc.engine.scripted.faults import happen
from mlx_grpc.engine.scripted.script import EOS_ID, VOCAB_SIZE, Script
from mlx_grpc.engine.scripted.speaker import Speaker

Gate = Callable[[], object]
"""Called before each step; returns when the step may go on."""


@dataclass(slots=True)
class _Place:
    """A row in the batch: how much of its prompt is processed, how much it has said."""

    row: Row
    speaker: Speaker
    position: int
    processed: int = 0

    @property
    def total(self) -> int:
        """Tokens to prefill: the prompt, and what an earlier engine generated."""
        return len(self.row.prompt) + len(self.row.output)


def open_scripted(load: Load, gate: Gate | None = None) -> ScriptedEngine:
    """The engine that `script:` and JSON asks for. In a thread a gate may be injected, such as
    `semaphore.acquire`."""
    try:
        script = msgspec.json.decode(load.path.partition(":")[2] or "{}", type=Script)
    except msgspec.MsgspecError as error:
        raise LoadError(f"the script is not valid: {error}") from None
    time.sleep(script.load_seconds)
    if script.load_error:
        raise LoadError(script.load_error)
    try:
        return ScriptedEngine(script, load, gate)
    except OSError as error:
        raise LoadError(f"the gate at {script.gate_path} cannot be opened: {error.strerror}") from None


class ScriptedEngine:
    """One token a step for each row that decodes, then prefill in chunks, first come first served."""

    def __init__(self, script: Script, load: Load, gate: Gate | None = None) -> None:
        self._script = script
        self._max_rows = load.max_rows
        self._chunk_tokens = load.prefill_step_tokens or script.prefill_tokens_per_step
        self._places: dict[int, _Place] = {}
        self._resources = contextlib.ExitStack()
        self._gate = gate or self._open_gate(script.gate_path)
        memory_bytes = min(script.memory_bytes, load.memory_limit_bytes or script.memory_bytes)
        self.loaded = Loaded(
            context_length=script.context_length, vocab_size=VOCAB_SIZE, dtype="scripted",
            weights_bytes=script.weights_bytes, kv_bytes_per_token=script.kv_bytes_per_token,
            memory_bytes=memory_bytes, device="script", mlx_version="", mlx_lm_version="",
            eos_ids=[EOS_ID], reproducible=True, batching=script.batching,
            max_rows=1 if script.batching == "ALONE" else 0,
        )  # fmt: skip

    @property
    def active_rows(self) -> int:
        """Rows in prefill or decoding."""
        return len(self._places)

    def submit(self, rows: Sequence[Row]) -> list[RowFailed]:
        """Take rows in; those it cannot take are returned."""
        failed = []
        for row in rows:
            if problem := row_problem(row, VOCAB_SIZE, self._max_rows - len(self._places)):
                failed.append(RowFailed(row.row_id, problem))
            else:
                self._places[row.row_id] = _Place(row, Speaker(row, self._script), len(row.output))
        return failed

    def cancel(self, row_ids: Sequence[int]) -> list[int]:
        """Take rows out; returns those that were in."""
        return [row_id for row_id in row_ids if self._places.pop(row_id, None)]

    def expected_seconds(self) -> float:
        """Nothing is known: faults decide."""
        return 0.0

    def step(self) -> Step:
        """Faults first, then a token for each row that decodes, then a chunk of prefill."""
        if self._gate:
            self._gate()
        time.sleep(self._script.step_seconds)
        failed = self._strike()
        for failure in failed:
            del self._places[failure.row_id]
        decoding = [place for place in self._places.values() if place.processed == place.total]
        tokens = [self._decode(place) for place in decoding]
        prefill = self._prefill()
        longest = max((place.processed for place in self._places.values()), default=0)
        kv_bytes = len(self._places) * longest * self._script.kv_bytes_per_token
        return Step(
            tokens=tokens, prefill=prefill, failed=failed, active_rows=len(self._places), kv_bytes=kv_bytes,
            memory_bytes=self._script.weights_bytes + kv_bytes,
        )  # fmt: skip

    def rest(self) -> None:
        """It keeps nothing."""

    def close(self) -> None:
        """Forget the rows and close the gate."""
        self._places.clear()
        self._resources.close()

    def _decode(self, place: _Place) -> RowToken:
        row, position = place.row, place.position
        token = place.speaker.token(position)
        place.position += 1
        finish = STOPPED if token in row.stop_ids else LENGTH if place.position >= row.max_tokens else RUNNING
        if finish:
            del self._places[row.row_id]
        return RowToken(row.row_id, token, finish, place.speaker.logprobs(position))

    def _prefill(self) -> list[RowPrefill]:
        budget, progress = self._chunk_tokens, []
        for place in self._places.values():
            if chunk := min(budget, place.total - place.processed):
                place.processed += chunk
                budget -= chunk
                progress.append(RowPrefill(place.row.row_id, place.processed, place.total))
        return progress

    def _strike(self) -> list[RowFailed]:
        """Let the script's faults happen; returns the rows that fail alone."""
        failing: dict[int, RowFailed] = {}
        for place in self._places.values():
            position = place.position if place.processed == place.total else -1 - place.processed
            for fault in self._script.faults:
                if fault.strikes(place.speaker.text, position) and happen(fault):
                    row_id, finite = place.row.row_id, fault.action != "nonfinite"
                    failing[row_id] = RowFailed(row_id, "the script fails this row", finite)
        return list(failing.values())

    def _open_gate(self, path: str) -> Gate | None:
        if not path:
            return None
        if stat.S_ISSOCK(os.stat(path).st_mode):
            connection = self._resources.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(path)
            return lambda: connection.recv(1)
        # Open for writing too, so that a test that closes its end does not let all steps through.
        fifo = os.open(path, os.O_RDWR)
        self._resources.callback(os.close, fifo)
        return lambda: os.read(fifo, 1)
