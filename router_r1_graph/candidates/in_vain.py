"""Replies that were paid and are of no use: a second call would bring, and cost, the same."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from .error_kinds import ErrorKind
from .failures import ReplyError

UNREAD = "unread"
"""In a message's response metadata: why a reply that is paid is of no use."""
UNREAD_KIND = "unread_kind"
"""In the same place: the kind of that error; none = malformed."""
_AS_IT_CAME = "as_it_came"
"""In the same place: whether the message is the model's own, and not made for the usage alone."""
UNREAD_MARKS = (UNREAD, UNREAD_KIND, _AS_IT_CAME)
IN_VAIN: frozenset[ErrorKind] = frozenset({"malformed", "empty", "declined"})
"""Errors of replies that may be paid; a second call would bring the same."""


def paid_in_vain(message: AIMessage, error: ReplyError, *, own: bool = False) -> AIMessage:
    """Return a message that tells the usage of a reply of no use, and the error.

    Args:
        message: the model's own, or one that was made for the usage.
        error: why it is of no use.
        own: whether it is the model's own: controllers read even one without a text.
    """
    marks = dict(zip(UNREAD_MARKS, (error.message, error.kind, own), strict=True))
    metadata = {**message.response_metadata, **marks}
    return message.model_copy(update={"response_metadata": metadata})


def is_own(message: AIMessage) -> bool:
    """Return whether a message is the model's own, and not made for its usage alone."""
    told = message.response_metadata
    return bool(told.get(_AS_IT_CAME, UNREAD not in told))


def unmarked(message: AIMessage) -> AIMessage:
    """Return a message without the marks of `paid_in_vain`."""
    told = message.response_metadata
    if UNREAD not in told:
        return message
    metadata = {name: value for name, value in told.items() if name not in UNREAD_MARKS}
    return message.model_copy(update={"response_metadata": metadata})
