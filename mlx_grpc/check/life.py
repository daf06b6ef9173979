"""The server's life: its health, its process, its errors, and a model that is loaded while others generate."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from mlx_grpc.check.calls import at_once, options, prompt, streamed
from mlx_grpc.check.outcome import Failed, Skipped
from mlx_grpc.check.subject import Subject, line
from mlx_grpc.client import HealthStatus, Model, ModelState
from mlx_grpc.errors import MlxGrpcError, NoToken, UnsupportedField, WrongScope

INFERENCE = "mlx_grpc.v1.InferenceService"
LOOK_EVERY_SECONDS = 0.1
FAULTS = ("INTERNAL", "POISON_REQUEST", "NONFINITE_LOGITS", "MODEL_FAILED", "SLOW_READER")
"""What a server must not have answered during the run; the rest is the callers' doing, or said in time."""
LOG_SIGNS = (" ERROR ", '"level": "error"', "Traceback (most recent call last)", "panic:", "Metal GPU", "Abort trap")


async def health(subject: Subject) -> str:
    """The process and the service are SERVING; versions and device."""
    for service in ("", INFERENCE):
        found = await subject.client.health(service, timeout_seconds=10)
        if found is not HealthStatus.SERVING:
            raise Failed(f"health of {service or 'the process'!r} is {found.value}")
    if subject.settings.admin is not None:
        subject.first_status = await asyncio.to_thread(subject.status)
    if subject.settings.log is not None:
        subject.log_bytes = _log_bytes(subject)
    try:
        info = await subject.client.server_info()
    except UnsupportedField:
        return "SERVING"
    return " ".join(word for word in ("SERVING,", info.version, "on", info.device or info.backend) if word)


async def stability(subject: Subject) -> str:
    """The same process and the same engines as at the beginning."""
    now = await asyncio.to_thread(subject.status)
    before = subject.first_status or {}
    for fact in ("pid", "restarts", "crashes", "stalls"):
        if now.get(fact) != before.get(fact):
            raise Failed(f"{fact} was {before.get(fact)} and is {now.get(fact)}")
    engines = {one.get("id"): one.get("engine_pid") for one in now.get("models", ()) if one.get("engine_pid")}
    said = "".join(f", engine of {name} {pid}" for name, pid in engines.items())
    return f"same process id {now.get('pid')}{said}; no restart, crash or stall"


async def errors(subject: Subject) -> str:
    """No fault of the server's own since the run began, in its status and its log."""
    now = await asyncio.to_thread(subject.status)
    before = subject.first_status or {}
    faults = Counter(_faults(now)) - Counter(_faults(before))
    if faults:
        last: dict[str, Any] = next((one for one in now.get("recent_errors", ()) if one.get("reason") in FAULTS), {})
        raise Failed(f"{dict(faults)}; the last: {last.get('message', 'not in recent_errors')}")
    if failed := [one.get("id") for one in now.get("models", ()) if str(one.get("state")).upper() == "FAILED"]:
        raise Failed(f"models in state FAILED: {failed}")
    checked = f"{len(now.get('recent_errors', ()))} recent errors, none of them the server's fault"
    if subject.settings.log is None:
        return f"{checked}; no log was read (--log FILE)"
    return f"{checked}; {_check_log(subject)} lines of log without an error"


def _faults(status: dict[str, Any]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for counts in (status.get("failed", {}), status.get("refused", {})):
        found += Counter({reason: counts[reason] for reason in FAULTS if reason in counts})
    return dict(found)


def _log_bytes(subject: Subject) -> int:
    assert subject.settings.log is not None
    try:
        return subject.settings.log.stat().st_size
    except OSError as error:
        raise Failed(f"--log: {error}") from error


def _check_log(subject: Subject) -> int:
    """How many lines came since the run began. Raises Failed with the first that tells of an error."""
    assert subject.settings.log is not None
    start = subject.log_bytes if _log_bytes(subject) >= subject.log_bytes else 0  # it was rotated
    with subject.settings.log.open(encoding="utf-8", errors="replace") as file:
        file.seek(start)
        lines = file.read().splitlines()
    for one in lines:
        if any(sign in one for sign in LOG_SIGNS):
            raise Failed(f"in the log: {one[:200]}")
    return len(lines)


async def loading(subject: Subject) -> str:
    """Three streams run while a model is loaded; they end well, and the loaded one answers."""
    model = await _loadable(subject)
    if model.state is not ModelState.UNLOADED:
        await subject.client.unload_model(model.id)
        await _reached(subject, model.id, ModelState.UNLOADED)
    # Enough tokens that they still run when the loading begins, whatever the server's speed.
    others = asyncio.create_task(at_once(subject, [streamed] * 3, tokens=4 * subject.settings.tokens))
    try:
        await subject.client.load_model(model.id)
        await _reached(subject, model.id, ModelState.READY)
        burst = await others
    finally:
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
    answer = await subject.client.generate(**prompt(subject, 4) | options(subject, 4, 4) | {"model": model.id})
    if model.state is ModelState.UNLOADED:  # as it was found
        await subject.client.unload_model(model.id)
        await _reached(subject, model.id, ModelState.UNLOADED)
    return f"{model.id} loaded and answered {answer.usage.completion_tokens} tokens; the others: {burst}"


async def _loadable(subject: Subject) -> Model:
    """A model that may be loaded here. Raises Skipped."""
    client, named = subject.client, subject.settings.load_model
    try:
        models = [model async for model in client.list_models()]
        default = next((model.id for model in models if model.default), "")
        # Loading what is loaded changes nothing; the answer tells whether it is allowed.
        await client.load_model(default or models[0].id)
    except (WrongScope, NoToken, UnsupportedField) as error:
        raise Skipped(f"the server does not allow it: {error.message}") from error
    except (MlxGrpcError, IndexError) as error:
        raise Failed(f"the models cannot be listed or loaded: {line(error)}") from error
    free = [model for model in models if model.id == named or (not named and model.state is ModelState.UNLOADED)]
    if not free:
        raise Skipped("no model here is unloaded; name one that may be unloaded and loaded again with --load-model")
    if free[0].id == (subject.settings.model or default):
        raise Skipped("--load-model names the model that the others generate with")
    return free[0]


async def _reached(subject: Subject, name: str, state: ModelState) -> None:
    """Waits, as long as the test may take."""
    while (model := await subject.client.get_model(name)).state is not state:
        if model.state is ModelState.FAILED:
            raise Failed(f"{name} could not be loaded: {model.error}")
        await asyncio.sleep(LOOK_EVERY_SECONDS)
