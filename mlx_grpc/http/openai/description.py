"""The port's own description, at /openapi.json: made from the bodies that are parsed, so that both agree."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlx_grpc import __version__
from mlx_grpc.http.openai.bodies import (
    NEUTRAL_CHAT,
    NEUTRAL_COMPLETION,
    NEUTRAL_MESSAGE,
    NEUTRAL_STREAM,
    Body,
    ChatBody,
    ChatMessage,
    CompletionBody,
    Neutral,
    StreamOptions,
    TextPart,
)

Json = dict[str, Any]

STATUSES = {
    400: "A field, a header or the body is not valid, is not supported, or asks for more than there is.",
    401: "A bearer token is needed.",
    403: "The token may not do this.",
    404: "There is no such model, or it is not loaded.",
    408: "The body did not come in time.",
    409: "An operator cancelled the call.",
    413: "The body is too large.",
    415: "The body must be JSON.",
    429: "The queue is full; Retry-After says when to come again.",
    500: "An error of the server's, or a request that crashed its engine twice.",
    503: "The model is loading or has failed, or the server is going down.",
    504: "The deadline of X-Timeout cannot be met, or has passed.",
}
_SENT_BODY = tuple(STATUSES)
_ASKED = (401, 403, 500, 503)


@cache
def describe() -> Json:
    """The description, OpenAPI 3.1. Do not change what it returns."""
    paths = {
        "/v1/chat/completions": {"post": _call("ChatBody", "Answer a conversation.")},
        "/v1/completions": {"post": _call("CompletionBody", "Go on from a prompt.")},
        "/v1/models": {"get": _get("The models that take requests now or soon.", _ASKED)},
        "/v1/models/{model}": {
            "get": _get("One model.", (*_ASKED, 404)),
            "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        },
        "/openapi.json": {"get": _get("This description.", ())},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "mlx-grpc, OpenAI-compatible", "version": __version__},
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _schemas() -> Json:
    schemas: Json = {"Error": _ERROR}
    kinds: tuple[tuple[type[Body], Neutral], ...] = (
        (ChatBody, NEUTRAL_CHAT),
        (CompletionBody, NEUTRAL_COMPLETION),
        (ChatMessage, NEUTRAL_MESSAGE),
        (StreamOptions, NEUTRAL_STREAM),
        (TextPart, {}),
    )
    for kind, neutral in kinds:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schema["properties"] |= {
            name: {"enum": [None, *values], "description": "Not supported, but for values that change nothing."}
            for name, values in neutral.items()
        }
        schemas[kind.__name__] = schema
    return schemas


_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field at fault."},
                "code": {"type": "string"},
            },
        }
    },
}

_HEADERS = [
    ("X-Priority", {"type": "string", "enum": ["high", "normal", "low"]}, "Who goes first when requests wait."),
    ("X-Timeout", {"type": "number", "exclusiveMinimum": 0}, "The call's deadline, in seconds from its arrival."),
    ("X-Request-Id", {"type": "string", "maxLength": 128}, "The client's own name for the call; it comes back."),
]


def _call(body: str, summary: str) -> Json:
    return {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
            for name, schema, description in _HEADERS
        ],
        "requestBody": {"required": True, "content": _json({"$ref": f"#/components/schemas/{body}"})},
        "responses": {
            "200": {
                "description": "The answer; server-sent events when `stream` is true.",
                "content": {**_json({"type": "object"}), "text/event-stream": {"schema": {"type": "string"}}},
            },
            **_errors(_SENT_BODY),
        },
    }


def _get(summary: str, statuses: tuple[int, ...]) -> Json:
    answer = {"description": summary, "content": _json({"type": "object"})}
    return {"summary": summary, "responses": {"200": answer, **_errors(statuses)}}


def _errors(statuses: tuple[int, ...]) -> Json:
    content = _json({"$ref": "#/components/schemas/Error"})
    return {str(status): {"description": STATUSES[status], "content": content} for status in sorted(statuses)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
