"""The small words of English that show which part of a text asks, and for what."""

from __future__ import annotations


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


YOU = _set("you i we anyone anybody somebody someone u ya me")
ASKING = _set("who whom whose what which when where whereabouts how")
#: Verbs that ask for something where they start a sentence.
REQUESTS = _set(
    "name state give tell list identify find specify provide indicate write need want like "
    "know remind wonder wondering idea guess inform supply mention note put recall spell determine"
)
TELLING = _set(
    "me us know wonder wondering tell say guess remember recall ask asking asked and or but so "
    "then now is was are were be idea sure forgot forget exactly hey hi hello ok okay please out "
    "question see about well just quick curious remind i'm name right"
)
#: After "can I" they ask for something, and not whether.
WANTING = _set("ask have get help pick bother trouble borrow please just quickly")
BEFORE = _set("please and also now so just then , you to kindly can could")
OBJECT = _set("the a an me us both of all for out") | ASKING
#: They start a clause that asks nothing: "Seeing that ..., ".
CLAIMS = _set("seeing given since now as because although though while settled assuming after")
PRONOUNS = _set("he she it they him her them his its their one ones")
PREPOSITIONS = _set("in on of to by from at for with after into through under")
#: Before a noun, they put something there: the noun itself is not asked for.
PLACING = _set("in on of to from at with through under into within inside across via by")
DETERMINERS = _set("the a an this that his her their its my your our")
MODALS = _set("can could may might will would shall should must")
TAGS = _set("right correct true yes no isnt wasnt arent didnt doesnt false")
ENDS = _set("least most")
#: The relations that "how many" may ask for, apart from differences.
COUNTED = _set("atomic_number")
STOPS = _set(". ! ? ; : - \u2013 \u2014 ( )")
