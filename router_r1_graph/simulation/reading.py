"""Free English as structure: the known names in a text, and the path of relations that fits best.

A chain of relations from a name ("Hamlet", author, birth_country, currency) explains the cues of a
text: words of its relations, words for the types that it passes, names that are proposed as its
end. The chain that explains most with the fewest relations is what the text asks. Which relations
can follow one another is given by their types, so the order of words matters little: a nested
description may come first or last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul

from .cues import FOREIGN, HINT, TYPE, Cue, Lexicon
from .grammar import MAX_CHARACTERS, read_exact
from .names import Gazetteer, words_of
from .relations import relation_of
from .structure import Ask, Compare, Same, Structure, Term, YesNo, asks, folded
from .world import World

MAX_HOPS = 5
MAX_NAMES = 6
#: What a relation of a chain costs, and one that no word speaks of.
_COST, _UNSAID = 1.0, 1.8
#: What it is worth that a chain ends in the type that is asked for.
_FOCUS = 1.5
#: A cue in a part of the text that asks nothing, and one that stands at the other side.
_ASIDE, _OTHER_SIDE = 0.5, 0.3
#: How much a word without meaning here weighs against what is understood.
_STRANGE = 0.7
_NUMERIC = ("year", "number")

_AUXILIARIES = frozenset(
    ["is", "was", "are", "were", "did", "does", "do", "has", "have", "had", "isnt", "wasnt", "arent", "didnt", "doesnt", "would", "could", "can"]
)
_YOU = frozenset(["you", "i", "we", "anyone", "anybody", "somebody", "someone", "u", "ya", "y'all"])
_ASKING = frozenset(["who", "whom", "whose", "what", "which", "when", "where", "how"])
_PREPOSITIONS = frozenset(["in", "on", "of", "to", "by", "from", "at", "for", "with", "after", "into", "through", "under"])
_TAGS = frozenset(["right", "correct", "true", "yes", "no", "isnt", "wasnt", "arent", "didnt", "doesnt", "false"])
_BETWEEN = ("or", "than", "and", "versus", "vs", "as", "with", "to", ",")
_STOPS = frozenset(".!?;:-\u2013\u2014(")

Chain = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """A name in a text, by words."""

    start: int
    end: int
    name: str
    types: frozenset[str]
    relations: frozenset[str]
    """The relations of which it is known to be a subject."""
    penalty: float
    """How doubtful it is."""


@dataclass(frozen=True, slots=True)
class _Cue:
    start: int
    end: int
    cue: Cue
    weight: float
    """1, or less in a part of the text that asks nothing."""


@dataclass(frozen=True, slots=True)
class _Path:
    """A chain of relations from a name, and what it explains of each cue."""

    name: _Name
    chain: Chain
    explained: tuple[float, ...]
    score: float


@lru_cache(maxsize=1 << 16)
def read_question(text: str, world: World | None = None) -> Structure | None:
    """Return what a text asks, or None when it is not understood. Never raises.

    The sentences of the grammar are read exactly, and so are names that nobody knows; everything
    else is read by the names and relations of the world.

    Args:
        text: A question or a noun phrase, in any words.
        world: Whose names and relations are known; None = the embedded one.

    >>> read_question("hey, the bloke that penned Hamlet, where's he from?")
    Ask(relation='birth_country', subject=Ask(relation='author', subject='Hamlet'))
    """
    if len(text) > MAX_CHARACTERS:
        return None
    reader = reader_of(world or World.embedded())
    exact = read_exact(text)
    if exact is not None and reader.knows(exact):
        return exact
    return reader.read(text) or exact


class Reader:
    """Reads questions about the names and relations of a world.

    Args:
        kinds: for each name its types, and the relations of which it is a subject.
        follows: which relations can be asked of the object of one.
    """

    def __init__(
        self,
        names: Mapping[str, tuple[frozenset[str], frozenset[str]]],
        relations: Sequence[str],
        follows: Mapping[str, frozenset[str]],
    ) -> None:
        self._lexicon = Lexicon(relations)
        self._names = names
        self._follows = follows
        self._object = {name: relation_of(name).object for name in self._lexicon.relations}
        self._subject = {name: relation_of(name).subject for name in self._lexicon.relations}
        self._by_folded = {folded(name): kinds for name, kinds in names.items()}
        self._starts: dict[tuple[frozenset[str], frozenset[str]], Sequence[str]] = {}
        self._gazetteer = Gazetteer(_spellings(names, self._lexicon), self._lexicon.words)

    def knows(self, question: Structure) -> bool:
        """Say whether a question needs no other reading.

        Its names are known and can have its relations, or no word of them means anything here.
        """
        for ask in asks(question):
            if ask.relation not in self._object:
                # "the mayor of Paris" is nothing that other words could mean.
                if self._means(ask.relation.replace("_", " ")):
                    return False
            if isinstance(ask.subject, str):
                found = self._by_folded.get(folded(ask.subject))
                if found is None:
                    if self._means(ask.subject):
                        return False
                elif ask.relation in self._object and not (
                    ask.relation in found[1] or self._subject[ask.relation] in found[0]
                ):
                    return False
        return True

    def _means(self, text: str) -> bool:
        """Say whether a text holds a cue or a known name."""
        words = [word.text for word in words_of(text)]
        bases = [self._lexicon.base(word) for word in words]
        cues = (self._lexicon.at(bases, at) for at in range(len(bases)))
        return any(cue and cue[0].relations for cue in cues) or bool(
            self._gazetteer.find([self._gazetteer.spelled(word) for word in words])
        )

    def starts(self, name: _Name) -> Sequence[str]:
        """Return the relations that can be asked of a name."""
        known = self._starts.get((name.types, name.relations))
        if known is None:
            known = self._starts[name.types, name.relations] = tuple(
                relation
                for relation, subject in self._subject.items()
                if relation in name.relations or subject in name.types
            )
        return known

    def read(self, text: str) -> Structure | None:
        """Return what a text asks, or None when it is not understood."""
        return _Reading(self, text).best()


class _Reading:
    """One text on its way to a structure."""

    def __init__(self, reader: Reader, text: str) -> None:
        self.reader = reader
        self.text = text
        self.words = words_of(text)
        self.texts = [word.text for word in self.words]
        self.spelled = [reader._gazetteer.spelled(word) for word in self.texts]
        self.bases = [self._base(at) for at in range(len(self.words))]
        self.names = self._find_names()
        self.taken = [False] * len(self.words)
        for name in self.names:
            if name.penalty < 1.0:
                self.taken[name.start : name.end] = [True] * (name.end - name.start)
        self._find_parts()
        self._find_cues()

    # -- what is there

    def _find_names(self) -> list[_Name]:
        lexicon = self.reader._lexicon
        mixed = self.text != self.text.lower() and self.text != self.text.upper()
        kept: list[_Name] = []
        phrases = [
            (at, cue[1])
            for at in range(len(self.bases))
            if (cue := lexicon.at(self.bases, at)) and cue[1] - at > 1
        ]
        for found in self.reader._gazetteer.find(self.spelled):
            if any(
                n.start < found.end
                and found.start < n.end
                and n.name != found.name
                and (n.start, n.end) != (found.start, found.end)
                for n in kept
            ):
                continue
            if any(
                start <= found.start and found.end <= end and end - start > found.end - found.start
                for start, end in phrases
            ):
                continue
            types, relations = self.reader._names.get(found.name, (frozenset(), frozenset()))
            written = self.text[self.words[found.start].start : self.words[found.end - 1].end]
            penalty = 0.4 * found.wrong
            single = found.end - found.start == 1
            word = self.texts[found.start]
            if types == {"symbol"} and (written != found.name or len(self.words) < 3):
                continue
            if single and (word in lexicon.words or word in _AUXILIARIES):
                bare = folded(found.name)
                if mixed and written.islower() and not bare.islower():
                    continue
                penalty += 0.2 if bare == word else 1.5
                if word in lexicon.plain or written.islower():
                    penalty += 1.0
            if single and found.wrong:
                penalty += 0.6
            if single and types == {"symbol"}:
                penalty += 1.0
            kept.append(_Name(found.start, found.end, found.name, types, relations, penalty))
            if len(kept) == MAX_NAMES:
                break
        for at, word in enumerate(self.texts):
            if word.isdigit() and not any(n.start <= at < n.end for n in kept):
                kept.append(_Name(at, at + 1, word, frozenset(_NUMERIC), frozenset(), 0.5))
        return sorted(kept[: MAX_NAMES + 2], key=lambda n: (n.start, n.penalty))

    def _base(self, at: int) -> str:
        word = self.texts[at]
        base = self.reader._lexicon.base(word)
        if base == word and word not in self.reader._lexicon.words and len(word) > 4:
            for other, wrong in self.spelled[at]:
                if wrong and other in self.reader._lexicon.words:
                    return self.reader._lexicon.base(other)
        return base

    def _find_parts(self) -> None:
        """Cut the text at its stops; find the part that asks, how, and for which type."""
        part = 0
        self.part: list[int] = []
        starts = [0]
        for at, word in enumerate(self.texts):
            if (word in _STOPS or word == "but") and not self.taken[at]:
                part += 1
                starts.append(at + 1)
            elif word == "," and not self.taken[at]:
                starts.append(at + 1)
            self.part.append(part)
        self.polar = False
        self.focus: Cue | None = None
        self.denied: set[str] = set()
        asking: int | None = None
        lexicon = self.reader._lexicon
        for at, word in enumerate(self.texts):
            if self.taken[at] and word not in _ASKING:
                continue
            following = self.texts[at + 1] if at + 1 < len(self.texts) else ""
            if word in _AUXILIARIES and at in starts and following not in _YOU and following:
                before = at >= 2 and self.focus is not None and following in ("it", "he", "she")
                if not before or following == "it":
                    self.polar, asking = True, self.part[at]
            elif word in ("whether", "if") or (
                word in ("true", "correct", "right") and following == "that"
            ):
                self.polar, asking = True, self.part[at]
            elif word in _TAGS and at in starts and at > 1:
                self.polar, asking = True, self.part[at - 1] if asking is None else asking
            elif word in _ASKING and not self._relative(at):
                cue = lexicon.at(self.bases, at)
                if word in ("what", "which", "how"):
                    cue = None
                    for ahead in range(at + 1, min(at + 5, len(self.texts))):
                        if self.taken[ahead] or self.texts[ahead] in _STOPS:
                            break
                        if self.texts[ahead] in _AUXILIARIES and ahead > at + 1:
                            break
                        cue = lexicon.at(self.bases, ahead)
                        if cue and (cue[0].types or max(cue[0].relations.values(), default=0) > 2):
                            break
                        cue = None
                if cue and "country" in cue[0].types and "city" in cue[0].types:
                    cue = self._elsewhere(max(cue[1], at + 1), cue)
                if not self.polar or at in starts:
                    if self.focus is None or cue is not None:
                        self.focus = cue[0] if cue else self.focus
                    asking = self.part[at]
                    self.polar = False
        self.asking = asking

    def _elsewhere(self, at: int, where: tuple[Cue, int]) -> tuple[Cue, int]:
        """Return what "where" asks for in "where is the city": not for a city."""
        if at >= len(self.texts) or self.texts[at] not in _AUXILIARIES | {"where"}:
            return where
        while at < len(self.texts) and self.bases[at] in ("be", "the", "that", "this"):
            at += 1
        if at < len(self.texts) and not self.taken[at]:
            found = self.reader._lexicon.at(self.bases, at)
            if found and where[0].types & found[0].types:
                self.denied = found[0].types
                types = where[0].types - found[0].types
                return Cue({}, types), where[1]
        return where

    def _relative(self, at: int) -> bool:
        """Say whether a word such as "who" starts a relative clause ("the man who")."""
        if self.taken[at]:
            return True
        last = len(self.texts) - 1
        while last > 0 and not self.texts[last][0].isalnum():
            last -= 1
        if at >= last:
            return False
        before = at - 1
        while before >= 0 and self.texts[before] in _PREPOSITIONS:
            before -= 1
        if before < 0:
            return False
        cue = self.reader._lexicon.at(self.bases, before)
        if self.taken[before]:
            return self.texts[at] not in ("what", "which") or self.texts[at - 1] == ","
        return (
            cue is not None
            and bool(cue[0].types)
            and self.texts[before] not in _ASKING
            and self.texts[at] != "what"
        )

    def _find_cues(self) -> None:
        self.cues: list[_Cue] = []
        self.strange = 0.0
        self.marks: set[str] = set()
        self.mark_at = -1
        lexicon = self.reader._lexicon
        at = 0
        while at < len(self.words):
            if self.taken[at] or not self.texts[at][0].isalnum():
                at += 1
                continue
            aside = self.asking is not None and self.part[at] != self.asking
            found = lexicon.at(self.bases, at)
            if found is not None and not any(self.taken[at : found[1]]):
                cue, end = found
                self.marks |= cue.marks
                if "foreign" in cue.marks and not aside:
                    self.strange += FOREIGN
                if cue.relations or cue.types:
                    self.cues.append(_Cue(at, end, cue, _ASIDE if aside else 1.0))
                at = end
                continue
            if (
                not aside
                and self.bases[at] not in lexicon.plain
                and self.texts[at] not in lexicon.plain
            ):
                if not any(n.start <= at < n.end for n in self.names):
                    self.strange += _STRANGE
            at += 1

        self.amounts = {
            relation: tuple(c.weight * c.cue.relations.get(relation, 0.0) for c in self.cues)
            for relation in {name for c in self.cues for name in c.cue.relations}
        }

    # -- what it means

    def best(self) -> Structure | None:
        """Return the structure that explains most."""
        if not self.names or not (self.cues or self.polar):
            return None
        if "same" in self.marks and (found := self._pair(same=True)):
            return found
        if self.marks & {"least", "most"} and (found := self._pair(same=False)):
            return found
        paths = [path for name in self.names for path in self._paths(name)]
        if self.polar:
            found_yes_no = self._yes_no(paths)
            if found_yes_no is not None:
                return found_yes_no
        best = max(paths, key=lambda path: path.score, default=None)
        if best is None or not self._understood(best.explained, best.chain):
            return None
        term = _term(best.name.name, best.chain)
        return term if isinstance(term, Ask) else None

    def _understood(self, explained: Sequence[float], *chains: Chain) -> bool:
        total = sum(explained)
        missed = sum(
            (max(cue.cue.relations.values(), default=0.0) - HINT) * cue.weight
            for cue, amount in zip(self.cues, explained, strict=False)
            if amount == 0 and cue.cue.relations
        )
        return total >= 1.0 and total >= self.strange + 0.8 * missed

    def _paths(
        self,
        name: _Name,
        sides: Sequence[float] | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> list[_Path]:
        """Return the chains from a name that explain something.

        Args:
            name: Where they start.
            sides: For each cue how much of it counts for this name.
            extra: What relations explain beside the cues, as the last of a chain.
        """
        reader = self.reader
        focus = self.focus
        cues = self.cues
        amounts = self.amounts
        weights = [0.0 if cue.start < name.end and name.start < cue.end else 1.0 for cue in cues]
        if sides is not None:
            weights = [one * other for one, other in zip(weights, sides, strict=True)]
        if any(weight != 1.0 for weight in weights):
            amounts = {relation: tuple(map(mul, row, weights)) for relation, row in amounts.items()}
        nothing = (0.0,) * len(cues)
        # What the type of the name itself explains: "the film Psycho".
        own = tuple(
            0.5 * weight * cue.weight if not name.types.isdisjoint(cue.cue.types) else 0.0
            for cue, weight in zip(cues, weights, strict=True)
        )
        start = -name.penalty
        if self.asking is not None and self.part[name.start] != self.asking:
            start -= 1.0
        paths: list[_Path] = []

        def nearness(relation: str) -> float:
            near = [
                max(cue.start - name.end, name.start - cue.end)
                for cue, amount in zip(cues, amounts.get(relation, nothing), strict=True)
                if amount > 0
            ]
            return 0.8 / (1 + min(near) / 3) if near else 0.0

        def walk(chain: Chain, explained: tuple[float, ...], score: float, unsaid: int) -> None:
            options = reader._follows[chain[-1]] if chain else reader.starts(name)
            for relation in options:
                if relation in chain:
                    continue
                row = amounts.get(relation, nothing)
                union = tuple(map(max, explained, row))
                gain = sum(union) - sum(explained)
                cost = _COST
                may_end = True
                more_unsaid = unsaid
                ending = (extra or {}).get(relation, 0.0)
                if gain <= 0.3:
                    if relation in reader._lexicon.implied and unsaid < 2:
                        cost, more_unsaid = _UNSAID, unsaid + 1
                        may_end = ending > 0 or (
                            focus is not None
                            and bool(self.denied)
                            and reader._object[relation] in focus.types
                        )
                    elif ending > 0:
                        cost = _UNSAID
                    else:
                        continue
                path = (*chain, relation)
                after = score + gain - cost
                if not chain:
                    after += nearness(relation)
                    if relation not in name.relations:
                        after -= 0.4
                if may_end:
                    bonus = ending
                    if focus is not None and sides is None:
                        if reader._object[relation] in focus.types or relation in focus.relations:
                            bonus += _FOCUS
                        if reader._object[relation] in self.denied:
                            bonus -= _FOCUS
                    paths.append(_Path(name, path, union, after + bonus))
                if len(path) < MAX_HOPS:
                    walk(path, union, after, more_unsaid)

        walk((), own, start, 0)
        return paths

    def _yes_no(self, paths: Sequence[_Path]) -> YesNo | None:
        best: tuple[float, YesNo, _Path] | None = None
        for subject in self.names:
            for value in self.names:
                if value is subject or (value.start < subject.end and subject.start < value.end):
                    continue
                extra = {
                    relation: TYPE
                    for relation, object_ in self.reader._object.items()
                    if object_ in value.types
                }
                if not extra:
                    continue
                for path in self._paths(subject, extra=extra):
                    if path.chain[-1] not in extra:
                        continue
                    ask = _term(subject.name, path.chain)
                    if isinstance(ask, Ask):
                        score = path.score - value.penalty
                        if best is None or score > best[0]:
                            best = score, YesNo(ask, value.name), path
        if best is None:
            return None
        explained = (*best[2].explained, TYPE)
        return best[1] if self._understood(explained, best[2].chain) else None

    def _pair(self, *, same: bool) -> Structure | None:
        """Return a comparison of two sides, or None where there are not two that fit."""
        best: tuple[float, Structure, tuple[float, ...]] | None = None
        for i, first in enumerate(self.names):
            for second in self.names[i + 1 :]:
                if second.start < first.end:
                    continue
                cut = self._cut(first, second)
                if cut is None:
                    continue
                left = [1.0 if cue.start < cut else _OTHER_SIDE for cue in self.cues]
                right = [1.0 if cue.start >= cut else _OTHER_SIDE for cue in self.cues]
                for relation, object_ in self.reader._object.items():
                    if not same and object_ not in _NUMERIC:
                        continue
                    whole = self.amounts.get(relation, (0.0,) * len(self.cues))
                    if same and not any(amount >= TYPE * _ASIDE for amount in whole):
                        continue
                    one, two = (
                        self._side(first, left, relation),
                        self._side(second, right, relation),
                    )
                    if one is None or two is None:
                        continue
                    explained = tuple(map(max, one.explained, two.explained, whole))
                    score = (
                        sum(explained)
                        + one.score
                        + two.score
                        - _COST * (len(one.chain) + len(two.chain))
                    )
                    if best is None or score > best[0]:
                        a, b = _term(first.name, one.chain), _term(second.name, two.chain)
                        structure: Structure = (
                            Same(relation, a, b)
                            if same
                            else Compare(relation, a, b, least=self._least(object_))
                        )
                        best = score, structure, explained
        if best is None or not self._understood((*best[2], 1.5)):
            return None
        return best[1]

    def _side(self, name: _Name, sides: Sequence[float], relation: str) -> _Path | None:
        """Return the best chain from a name to a subject of a relation; it may be empty."""
        subject = self.reader._subject[relation]
        nothing = (0.0,) * len(self.cues)
        found = [
            path
            for path in self._paths(name, sides)
            if relation in self.reader._follows[path.chain[-1]] and relation not in path.chain
        ]
        if subject in name.types or relation in name.relations:
            found.append(_Path(name, (), nothing, -name.penalty))
        best = max(found, key=lambda path: path.score, default=None)
        if best is None:
            return None
        return _Path(name, best.chain, best.explained, -name.penalty)

    def _cut(self, first: _Name, second: _Name) -> int | None:
        """Return where the first side ends and the second starts."""
        between = self.texts[first.end : second.start]
        for word in _BETWEEN:
            if word in between:
                return first.end + between.index(word)
        return None

    def _least(self, object_: str) -> bool:
        return "least" in self.marks and ("most" not in self.marks)


def _term(name: str, chain: Chain) -> Term:
    term: Term = name
    for relation in chain:
        term = Ask(relation, term)
    return term


def _spellings(
    names: Mapping[str, tuple[frozenset[str], frozenset[str]]], lexicon: Lexicon
) -> dict[str, str]:
    """Return each spelling with its name: the names, their aliases, persons by their last names."""
    spellings = {name: name for name in names}
    for alias, name in lexicon.aliases.items():
        if name in names:
            spellings.setdefault(alias, name)
    known = {folded(name) for name in names}
    short: dict[str, set[str]] = {}
    for name, (types, _) in names.items():
        if "person" in types:
            words = name.split()
            for at in range(1, len(words)):
                short.setdefault(" ".join(words[at:]), set()).add(name)
    for ending, of in short.items():
        low = ending.lower()
        if len(of) == 1 and low not in known and low not in lexicon.words and len(low) > 3:
            spellings.setdefault(ending, next(iter(of)))
    return spellings


@lru_cache(maxsize=64)
def reader_of(world: World) -> Reader:
    """Return the reader of a world."""
    types: dict[str, set[str]] = {}
    subject_of: dict[str, set[str]] = {}
    spelled: dict[str, str] = {}
    for fact in world.facts:
        relation = relation_of(fact.relation)
        for name, type_ in ((fact.subject, relation.subject), (fact.object, relation.object)):
            name = spelled.setdefault(folded(name), name)
            types.setdefault(name, set()).add(type_)
        subject_of.setdefault(spelled[folded(fact.subject)], set()).add(fact.relation)
    names = {
        name: (frozenset(found), frozenset(subject_of.get(name, ())))
        for name, found in types.items()
    }
    return _reader(frozenset(names.items()), world.relations)


@lru_cache(maxsize=16)
def _reader(
    names: frozenset[tuple[str, tuple[frozenset[str], frozenset[str]]]], relations: Chain
) -> Reader:
    every = Lexicon(relations).relations
    of = dict(names)
    subject = {name: relation_of(name).subject for name in every}
    follows: dict[str, set[str]] = {name: set() for name in every}
    for name in every:
        object_ = relation_of(name).object
        follows[name].update(other for other in every if subject[other] == object_)
        for types, asked in of.values():
            if object_ in types:
                follows[name].update(asked)
    ordered = dict(sorted(of.items()))
    return Reader(ordered, relations, {name: frozenset(o) for name, o in follows.items()})
