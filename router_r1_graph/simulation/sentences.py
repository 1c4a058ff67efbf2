"""Sentences put together: a capital where one starts, a small letter where it goes on.

Texts are passed on as they go on after a comma ("who wrote Emma?"), and get their capital last.
"""

from __future__ import annotations

import re


def capitalized(text: str) -> str:
    """Return a sentence with a capital at its start."""
    return text[:1].upper() + text[1:]


def running(form: str) -> str:
    """Return a form as it goes on after a comma; a slot at its start and "I" stay as they are.

    >>> running("Who wrote {x}?"), running("I wonder who wrote {x}.")
    ('who wrote {x}?', 'I wonder who wrote {x}.')
    """
    return form if re.match(r"\{|I\b", form) else form[:1].lower() + form[1:]


def inserted(template: str, **sentences: str) -> str:
    """Return a template with sentences in its slots, with capitals where a new sentence starts.

    >>> inserted("{q1} Also, {q2} And {q1}", q1="who wrote Emma?", q2="Emma is by whom?")
    'who wrote Emma? Also, Emma is by whom? And who wrote Emma?'
    """

    def sentence(slot: re.Match[str]) -> str:
        starts = re.search(r"[.?!:}] $", form[: slot.start()])
        text = sentences[slot["name"]]
        return capitalized(text) if starts else text

    form = running(template)
    return re.sub(r"([.?!])[.?]+", r"\1", re.sub(r"\{(?P<name>\w+)\}", sentence, form))
