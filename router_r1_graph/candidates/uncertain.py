"""Whether a failed attempt may have a price that no usage tells."""

from __future__ import annotations

import re
from typing import Any

from langchain_core.messages import AIMessage

from .error_kinds import ErrorKind
from .failures import BrokenReplyError, CutReplyError, chain
from .reply import Reply

#: Classes of httpx, requests, urllib3, aiohttp and the standard library: no request has gone out.
_UNSENT = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"),
        *("LocalProtocolError", "InvalidURL", "ConnectionRefusedError", "gaierror"),
        *("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"),
        *("ClientConnectorError", "ConnectionTimeoutError", "SSLCertVerificationError"),
    }
)
_UNSENT_WORDS = re.compile(
    r"refused|getaddrinfo|name resolution|name or service|nodename nor servname|unreachable"
    r"|no address associated|no route to host|connection attempts failed|failed to connect"
    r"|certificate.verify.failed|wrong.version.number|alert.(handshake|protocol.version)",
    re.I,
)
_LOST: frozenset[ErrorKind] = frozenset({"timeout", "connection"})
_UNREAD: frozenset[ErrorKind] = frozenset({"malformed", "empty", "other", "bug"})
"""The kinds of errors of a reply that came, or of a client that could not send its request."""


def never_sent(error: Any) -> bool:
    """Return whether an exception is of a request that could not be sent."""
    if not isinstance(error, BaseException):
        return False
    classes = {kind.__name__ for one in chain(error) for kind in type(one).__mro__}
    return bool(classes & _UNSENT) or getattr(error, "unsent", False)


def perhaps_billed(one: Reply, outcome: Any) -> bool:
    """Return whether a failed attempt may have a price that no usage tells.

    Args:
        one: the attempt, as it was read.
        outcome: its message or exception.
    """
    if one.error is None or one.input_tokens + one.output_tokens or one.cost_usd:
        return False
    if getattr(outcome, "begun", False):  # what had been written is paid
        return True
    if never_sent(outcome):
        return False
    if one.error.kind in _LOST:
        # An error that a reply names is free, whatever its words are.
        named = isinstance(outcome, BrokenReplyError) and not isinstance(outcome, CutReplyError)
        return not named and not _UNSENT_WORDS.search(one.error.message)
    if isinstance(outcome, AIMessage) and one.error.kind != "malformed":
        return False  # it was read, and its price is known
    # Our own client knows whether a reply came; of others it is assumed.
    return one.error.kind in _UNREAD and not getattr(outcome, "no_reply", False)
