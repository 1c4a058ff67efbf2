"""A refused request: an error in the form of OpenAI's API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..outside import writable
from ..words import shortened

_LONGEST, _LONGEST_PARAM = 800, 100
"""Characters of a message, and of the field's name: either may repeat what the client sent."""


class RefusedError(Exception):
    """A request that is refused, with an error in the form of OpenAI's API."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        param = param and shortened(param, _LONGEST_PARAM)
        named = param and re.search(rf"(?<!\w){re.escape(param)}(?!\w)", message)
        text = message if named or not param else f"{param}: {message}"
        self.error: dict[str, Any] = {
            "message": writable(shortened(text, _LONGEST)),
            "type": kind,
            "param": param,
            "code": code,
        }
        if more:
            self.error["router_r1"] = dict(more)
        self.headers = dict(headers or {})
