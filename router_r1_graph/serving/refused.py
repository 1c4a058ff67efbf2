"""A refused request: an error in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping


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
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        text = f"{param}: {message}" if param and param not in message else message
        self.error = {"message": text, "type": kind, "param": param, "code": code}
        self.headers = dict(headers or {})
