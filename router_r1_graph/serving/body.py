"""The body of a request: read within limits of size and time; errors become those of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from ..errors import ConfigError, ControllerError, QuestionError
from ..outside import read_json
from .refused import RefusedError
from .request import Asked

_LARGEST_BODY = 4 * 1024 * 1024
_LARGEST_WITH_IMAGES = 20 * 1024 * 1024
"""A photograph of a phone has about 5 MB in a request, and a conversation has several."""
_MOST_READ = 8
"""A body that is too long is read and dropped, up to this multiple of the limit: a client that
still sends when the connection ends would see a broken pipe instead of the error."""
_GZIP = b"\x1f\x8b"
_BODY_SECONDS = 30.0


async def read_body(request: Request, *, images: bool) -> bytes:
    """Read the body of a request.

    Args:
        request: the request.
        images: whether a candidate takes images.

    Raises:
        RefusedError: it is too long, or takes too long.
    """
    largest = _LARGEST_WITH_IMAGES if images else _LARGEST_BODY
    body, length = bytearray(), 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                length += len(part)
                if length <= largest:
                    body += part
                elif length > _MOST_READ * largest:
                    break
    except TimeoutError:
        why = f"the body did not come within {_BODY_SECONDS:g} s"
        raise RefusedError(408, why, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise RefusedError(499, "the client has gone") from None
    if length > largest:
        raise RefusedError(413, f"the body is longer than {largest} bytes")
    return bytes(body)


def parsed(body: bytes, encoding: str = "") -> object:
    """Parse the body of a request.

    Args:
        body: the body.
        encoding: how it is compressed, by its header Content-Encoding.

    Raises:
        RefusedError: it is not JSON.
    """
    try:
        return read_json(body)
    except (ValueError, RecursionError) as error:
        if body.startswith(_GZIP) or encoding.strip().lower() not in ("", "identity"):
            why = "the body is compressed, which is not read here; send it as it is"
            raise RefusedError(415, why) from None
        raise RefusedError(400, f"the body is not JSON: {_why(error)}") from None


def _why(error: ValueError | RecursionError) -> str:
    """Return why a text is no JSON, without Python's advice."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number has too many digits" if "set_int_max_str_digits" in str(error) else str(error)


@contextmanager
def refusing(kind: type[Asked]) -> Iterator[None]:
    """Turn the errors of a run into those of the API."""
    try:
        yield
    except QuestionError as error:
        asked = "messages" if "messages" in kind.model_fields else "input"
        raise RefusedError(400, str(error), param=asked) from None
    except ControllerError as error:
        paid = {"cost_usd": error.cost_usd} if error.cost_usd else None
        raise RefusedError(502, str(error), code="controller_error", more=paid) from None
    except ConfigError as error:  # it begins with the field: `keep`, `tools`, `budget_usd`
        why = str(error)
        for chats, ours in kind.called.items():
            why = why.replace(chats, ours)
        field = why.partition(":")[0]
        param = field if field.partition(".")[0] in kind.model_fields else None
        raise RefusedError(400, why, param=param) from None
