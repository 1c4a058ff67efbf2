"""Free English as structure: the known names in a text, and the path over types that fits best.

A chain of relations from a name ("Hamlet", author, birth_country, currency) explains the cues of a
text: words of its relations, words for the types that it passes, names that are proposed as its
end. The chain that explains most with the fewest relations is the question of the text. Types say
which relations can follow one another, so the order of words matters little: a nested description
may come first or last.
"""

from __future__ import annotations

from functools import lru_cache

from .cues import TYPE
from .grammar import MAX_CHARACTERS, read_exact
from .pairs import read_pair
from .paths import Path, by_score, paths, understood
from .sides import are_offered, read_between, read_both, read_compare, read_same
from .sight import Sight
from .spotted import DOUBTFUL
from .structure import Ask, Both, Structure, YesNo, asks
from .vocabulary import Vocabulary, vocabulary_of
from .world import World


@lru_cache(maxsize=1 << 16)
def read_question(text: str, world: World | None = None) -> Structure | None:
    """Return the question in a text, or None if it is not understood. Never raises.

    The sentences of the grammar are read exactly, with any names. Everything else is read by the
    names and relations of the world.

    Args:
        text: A question or a noun phrase, in any words.
        world: The world with the known names and relations; None = the embedded one.

    >>> read_question("hey, the bloke that penned Hamlet, where's he from?")
    Ask(relation='birth_country', subject=Ask(relation='author', subject='Hamlet'))
    """
    if len(text) > MAX_CHARACTERS:
        return None
    vocabulary = vocabulary_of(world or World.embedded())
    exact = read_exact(text)
    if exact is not None and _needs_no_other(exact, vocabulary):
        return exact
    sight = Sight(text, vocabulary)
    pair = read_pair(sight, lambda part: _read(Sight(part, vocabulary)))
    return pair or _read(sight) or exact


def _needs_no_other(question: Structure, vocabulary: Vocabulary) -> bool:
    """Say whether a question read exactly needs no other reading.

    Its names are known and can have its relations, or no word of them means anything here.
    """
    if isinstance(question, YesNo):
        value = question.value
        if vocabulary.kind(value) is None and vocabulary.means(value):
            return False
    for ask in asks(question):
        known = ask.relation in vocabulary.object
        # "the mayor of Paris" is nothing that other words could mean.
        if not known and vocabulary.means(ask.relation.replace("_", " ")):
            return False
        if isinstance(ask.subject, str):
            kind = vocabulary.kind(ask.subject)
            if kind is None and vocabulary.means(ask.subject):
                return False
            if kind is not None and known and ask.relation not in vocabulary.starts(kind):
                return False
    return True


def _read(sight: Sight) -> Structure | None:
    if not sight.names and (unknown := sight.unknown_name()):
        sight.names.append(unknown)
        sight.strange = 0.0
    if not sight.names or not (sight.cues or sight.polar or sight.marks):
        return None
    compared = not sight.marks.isdisjoint(("least", "most", "order")) or are_offered(sight)
    chosen = read_compare(sight) if compared else None
    if chosen and len(chosen.sides) > 2:
        return chosen  # "before both of the others" asks for nothing that is the same
    if chosen and sight.focus and sight.texts[sight.focus.at] in ("which", "who", "whose"):
        return chosen  # "which came years before, A or B" asks for no difference
    return (
        ("between" in sight.marks and not _asks_one_year(sight) and read_between(sight))
        or ("same" in sight.marks and read_same(sight))
        or chosen
        or ((sight.polar or sight.states) and _yes_no(sight))
        or (sight.polar and not compared and read_same(sight))
        or _ask(sight)
        or _ask(sight, loosely=True)
        or None
    )


def _asks_one_year(sight: Sight) -> bool:
    """Say whether one year of one name is asked for: "until which year"."""
    focus = sight.focus
    if focus is None or focus.cue is None or sight.texts[focus.at] not in ("which", "what"):
        return False
    sure = [name for name in sight.names if name.penalty < DOUBTFUL]
    return "year" in focus.cue.types and len(sure) == 1


def _ask(sight: Sight, *, loosely: bool = False) -> Ask | Both | None:
    """Read a question for one object, or for two.

    Args:
        sight: The text.
        loosely: Whether words count for everything that they may mean by their type, and
            remaining words for nothing.
    """
    if loosely:
        sight.loosen()
    every = [path for name in sight.names for path in paths(sight, name, focus=sight.focus)]
    best = max(every, key=by_score, default=None)
    if best is None:
        return None
    if not loosely and {"and", "plus"} & {*sight.texts} and (both := read_both(sight, best)):
        return both
    only = len(sight.vocabulary.starts(best.name.kind)) == 1  # what else could be asked of it?
    possible = {*sight.vocabulary.starts(best.name.kind)}
    possible.update(*(sight.vocabulary.follows[relation] for relation in best.chain))
    if sight.counted or not understood(
        sight,
        best.explained,
        0.8 * only,
        aim=best.aim,
        hops=len(best.chain),
        possible=possible,
        loosely=loosely,
    ):
        return None
    term = best.term
    return term if isinstance(term, Ask) else None


def _yes_no(sight: Sight) -> YesNo | None:
    """Read a question that proposes a name as its answer."""
    found: list[tuple[float, YesNo, Path]] = []
    names = [name for name in sight.names if sight.polar or not sight.aside(name)]
    for value in names:
        fits = {
            r: TYPE for r, object_ in sight.vocabulary.object.items() if object_ in value.kind.types
        }
        if value.penalty > 3 * DOUBTFUL:
            continue
        for name in names if fits else ():
            if name.start < value.end and value.start < name.end:
                continue
            if not sight.polar and not sight.together((name, value)):
                continue  # "As Emma is by Austen, name the ..." states no answer
            for path in paths(sight, name, extra=fits):
                if path.chain[-1] in fits and isinstance(ask := path.term, Ask):
                    found.append((path.score - value.penalty, YesNo(ask, value.name), path))
    if not found:
        return None
    _, question, path = max(found, key=lambda each: each[0])
    return question if understood(sight, path.explained, TYPE) else None
