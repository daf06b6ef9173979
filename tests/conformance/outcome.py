"""What a call gave, and whether that is what a vector expects. Knows no client: facts are plain values, proto JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LOGPROB_TOLERANCE = 0.001


@dataclass
class Failure:
    """An error as a client decoded it. `kinds` are the names of its type and of all that it is a kind of."""

    kinds: tuple[str, ...]
    code: str
    reason: str
    message: str
    field: str
    resource: str
    retry_after_seconds: float | None
    metadata: Mapping[str, str]


@dataclass
class Outcome:
    """What was read of a call, whether it ended well or not."""

    events: list[str] = field(default_factory=list)
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str = ""
    stop_string: str = ""
    stop_token_id: int | None = None
    started: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    response: Any = None
    cancelled: bool = False
    error: Failure | None = None

    def add_event(self, kind: str) -> None:
        """Repeats of one kind count once."""
        if self.events[-1:] != [kind]:
            self.events.append(kind)


def differences(expect: Mapping[str, Any], found: Outcome) -> Iterator[str]:
    """One line for each key of `expect` that does not hold."""
    if found.error and "error" not in expect:
        yield f"failed: {found.error.kinds[0]} {found.error.message}"
        return
    if found.cancelled != expect.get("cancelled", False):
        yield f"cancelled is {found.cancelled}"
    for key, wanted in expect.items():
        match key:
            case "cancelled":
                continue
            case "error":
                yield from _error_differences(wanted, found.error)
            case "text_starts_with":
                if not found.text.startswith(wanted):
                    yield f"text is {found.text!r}"
            case "logprobs":
                if not alike(wanted, found.logprobs) or len(wanted) != len(found.logprobs):
                    yield f"logprobs are {found.logprobs}"
            case "started" | "usage" | "response":
                if not alike(wanted, getattr(found, key)):
                    yield f"{key} is {getattr(found, key)}, not {wanted}"
            case _:
                if (value := _value(found, key)) != wanted:
                    yield f"{key} is {value!r}, not {wanted!r}"


def alike(wanted: Any, found: Any) -> bool:
    """Objects hold what is wanted of them, lists are as long and hold it item by item, log-probabilities are near."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and (_near(wanted[key], found[key]) if key == "logprob" else alike(wanted[key], found[key]))
            for key in wanted
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(alike, wanted, found))
    return bool(wanted == found)


def _near(wanted: float, found: float) -> bool:
    return abs(wanted - found) <= LOGPROB_TOLERANCE


def _value(found: Outcome, key: str) -> Any:
    match key:
        case "text_characters":
            return len(found.text)
        case "token_ids_count":
            return len(found.token_ids)
        case "token_ids_sum":
            return sum(found.token_ids)
    return getattr(found, key)


def _error_differences(wanted: Mapping[str, Any], error: Failure | None) -> Iterator[str]:
    if error is None:
        yield f"ended well; expected {wanted}"
        return
    checks = {
        "type": wanted.get("type") in error.kinds,
        "code": wanted.get("code") == error.code,
        "reason": wanted.get("reason") == error.reason,
        "field": wanted.get("field") == error.field,
        "resource": wanted.get("resource") == error.resource,
        "message_has": wanted.get("message_has", "") in error.message,
        "retry_after": wanted.get("retry_after") == bool(error.retry_after_seconds),
        "metadata": wanted.get("metadata", {}).items() <= error.metadata.items(),
        "metadata_keys": set(wanted.get("metadata_keys", ())) <= error.metadata.keys(),
    }
    yield from (f"error.{key} is not {wanted[key]!r}: {error}" for key in wanted if not checks[key])
