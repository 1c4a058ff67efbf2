"""The places where limits are kept: memory, an SQLite file, or a Redis server."""

from __future__ import annotations

import os
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from ...errors import ConfigError

MEMORY = "memory"
_OF_ENVIRONMENT = "env:"
_REDIS = ("redis", "rediss", "unix")


def is_file(place: str) -> bool:
    """Return whether `limits_store` is the path of a file."""
    elsewhere = place == MEMORY or place.startswith(_OF_ENVIRONMENT) or "://" in place
    return bool(place.strip()) and not elsewhere


def check_place(place: str) -> None:
    """Check the form of `limits_store`.

    Raises:
        ValueError: it is none, or a URL with a password, which belongs into the environment.
    """
    if place.startswith(_OF_ENVIRONMENT):
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", place.removeprefix(_OF_ENVIRONMENT)):
            raise ValueError("env: needs the NAME of an environment variable in capitals")
        return
    if not place.strip():
        raise ValueError("is empty; allowed: memory, a file, redis://HOST:PORT/DATABASE, env:NAME")
    if "://" not in place:
        return
    try:
        url = urlsplit(place)
        password = url.password or url.username
        known = url.scheme in _REDIS and (url.port or True)
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if not known:
        raise ValueError(f"unknown scheme {url.scheme!r}; allowed: {', '.join(_REDIS)}, or a file")
    if password or re.search(r"(^|&)(password|username)=", url.query):
        # The value is not repeated in the message.
        raise ValueError(
            "a password does not belong in a file; use env:NAME, and set NAME to the URL"
        )


def find_place(place: str | None) -> str:
    """Return where `limits_store` points: `memory`, a URL, or the absolute path of a file.

    Raises:
        ConfigError: a variable is not set or malformed, or Redis needs the extra `redis`.
    """
    if place is None:
        return str(_own_folder() / "limits.sqlite")
    if place.startswith(_OF_ENVIRONMENT):
        name = place.removeprefix(_OF_ENVIRONMENT)
        place = os.environ.get(name, "").strip()
        if not place or place.startswith(_OF_ENVIRONMENT):
            raise ConfigError(f"limits_store: the environment variable {name} is not set")
        scheme, has_scheme, _ = place.partition("://")
        if has_scheme and scheme not in _REDIS:
            raise ConfigError(f"limits_store: {name} is no redis://, rediss:// or unix:// URL")
    if "://" in place:
        if find_spec("redis") is None:
            raise ConfigError(
                "limits_store: Redis needs the extra redis: pip install 'router-r1-graph[redis]'"
            )
        return place
    return MEMORY if place == MEMORY else os.path.abspath(place)


def _own_folder() -> Path:
    user = getattr(os, "getuid", int)()
    return Path(tempfile.gettempdir()) / f"router-r1-limits-{user}"
