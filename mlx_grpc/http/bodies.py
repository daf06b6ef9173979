"""Reads small JSON bodies into structs, and names the field that is wrong."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from mlx_grpc.errors import InvalidField

Body = TypeVar("Body")
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_NAMED = re.compile(r"field `([^`]*)`")


async def read_body(request: Request, kind: type[Body]) -> Body:
    """The body as a struct. Raises InvalidField.

    HTTPException 415 for a body that does not say that it is JSON: a form of another site could send that unasked; 400
    for a client that has left within it.
    """
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed within the body") from None
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if raw and content_type != "application/json":
        raise HTTPException(415, "send the body as Content-Type: application/json")
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        path, named = _PATH.search(text), _NAMED.search(text)
        field = path.group(1) if path and path.group(1) else named.group(1) if named else "body"
        raise InvalidField(f"the body is wrong: {text[:300]}", field=field[:100]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidField(f"the body is no JSON: {str(error)[:200]}", field="body") from None
