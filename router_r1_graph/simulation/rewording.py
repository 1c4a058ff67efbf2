"""Questions as people put them, brought nearer to the forms that the grammar reads."""

from __future__ import annotations

import re

_POLITE = re.compile(
    r"^(?:(?:so|ok|okay|hi|hello|well|and)[,.!]? )?"
    r"(?:please[, ]+)?"
    r"(?:(?:could|can|would|will) you (?:please )?(?:tell|give|remind) me |do you know |"
    r"i (?:would|'d) like to know |i want to know |i need to know |"
    r"(?:please )?(?:tell|give|remind) me |let me know |what about |question: ?)"
    r"(?:please[, ]+)?"
    r"|^(?:so|please|ok|okay|well)[,.!]? ",
    re.IGNORECASE,
)
_AT_THE_END = re.compile(r"[, ]+(?:please|thanks|thank you|exactly|do you know)$", re.IGNORECASE)


# In order; each is tried once on the whole text.
_REWORDINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"^(who|what|where|when|which)'s ", r"\1 is "),
        (r"^(in|on|from|after) what ", r"\1 which "),
        (
            r"^(?:what|which) year was (.+) (born|published|released|first performed)$",
            r"in which year was \1 \2",
        ),
        (r"^(?:what|which) year did (.+) die$", r"in which year did \1 die"),
        (r"^(?:what|which) (country|city) (?:was|is) (.+) from$", r"in which \1 was \2 born"),
        (
            r"^what (country|city|continent|currency|language|river|museum|film|opera|story) ",
            r"which \1 ",
        ),
        (r"^what (writer|director|composer|artist|inventor|scientist) ", r"which \1 "),
        (r"^which (?:currency|money) (?:does|do) (.+) use$", r"which currency is used in \1"),
        (r"^who (?:painted|sculpted|drew|carved|made) ", "who created "),
        (r"^who (?:authored|penned) ", "who wrote "),
        (r"^who (?:was|is) the painter of ", "who is the artist of "),
        (r"^who (?:filmed|shot) ", "who directed "),
        (r"^by whom was (.+) written$", r"who wrote \1"),
        (r"^by whom was (.+) directed$", r"who directed \1"),
        (r"^by whom was (.+) composed$", r"who composed \1"),
        (r"^by whom was (.+) (?:painted|created)$", r"who created \1"),
        (r"^(.+) was written by whom$", r"who wrote \1"),
        (r"^where was (.+) born$", r"in which country was \1 born"),
        (r"^where does (.+) come from$", r"in which country was \1 born"),
        (r"^who was (.+) written by$", r"who wrote \1"),
        (r"^(?:what|which) (?:is|was) the name of ", "what is "),
        (r"^(capital|currency|author|director|composer|inventor|continent) of ", r"the \1 of "),
        (r"^(?:give|state|say) ", "name "),
    )
)

# A type noun before a name: "the film Psycho". Only in lower case before a capital: "The Film Club"
# is a name.
_KIND = re.compile(
    r"^the (?:19th-century |famous |classic )?(?:film|movie|novel|book|play|poem|story|painting|"
    r"sculpture|statue|song|opera|ballet|symphony|character|author|writer|composer|painter|artist|"
    r"director|scientist|physicist|element|country|city) (?=[\"'A-Z0-9])"
)


def kind_dropped(text: str) -> str:
    """Return a name without a type noun before it and without quotes around it."""
    text = _KIND.sub("", text)
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def without_thanks(text: str) -> str:
    """Return a text without what politeness puts at its end."""
    return _AT_THE_END.sub("", text.rstrip(" ?.!"))


def reworded(text: str) -> str:
    """Return a question in plainer words; one that needs none comes back as it is.

    >>> reworded("Could you tell me who painted Guernica, please?")
    'who created Guernica'
    """
    text = " ".join(text.split()).rstrip(" ?.!")
    text = _AT_THE_END.sub("", _POLITE.sub("", text))
    for pattern, replacement in _REWORDINGS:
        text = pattern.sub(replacement, text)
    return text
