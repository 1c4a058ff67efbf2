"""The knowledge and replies of a simulated candidate: a pure function of its record and the query.

Whether it knows a fact is drawn by a hash of its name and the fact, with the probability that its
`benchmarks` give for the fact's domain. So a record with a new name, new prices and new strengths
is a new candidate, and the same question always gets the same reply, in every process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..candidates import Candidate
from ..candidates.providers import read_options
from ..errors import PoolError
from .decomposed import Decomposed
from .draw import fraction
from .file_reading import read
from .structure import NO, YES, Ask, Between, Both, Compare, Structure, hops, next_steps
from .wording import UNCLEAR, UNKNOWN, Style, wrap, wrap_hostile
from .world import known_world

Fraction = Annotated[float, Field(ge=0, le=1)]


class SimulatedOptions(BaseModel):
    """The `options:` of a simulated candidate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    elsewhere: Fraction = 0.03
    """The probability of knowing a fact in a domain that is not listed."""
    skills: dict[str, Fraction] | None = None
    """The probability of knowing a fact, by domain; None = its `benchmarks`. So a descriptor may
    use other words for a domain, name strengths only, or be wrong."""
    hops: Annotated[int, Field(ge=1, le=1000)] = 1
    """The most facts that it can combine for one question."""
    unknown: Literal["abstain", "wrong"] = "abstain"
    """Its behaviour if it does not know the answer, or if a question takes too many hops."""
    style: Style = "terse"
    """How it words a reply: the bare answer, one sentence, or several."""
    sleep: bool = False
    """Wait `latency_seconds` before each reply."""
    fail_rate: Fraction = 0.0
    """The probability that a call raises; each retry is drawn again."""
    hostile: bool = False
    """Add text to replies that imitates the tags of the controller."""
    facts: str | None = None
    """A file of facts that replace the embedded world's: CSV, or JSONL of questions with their
    sub-questions. `permuted:SEED` = the embedded facts with their objects permuted."""
    whole: Fraction | None = None
    """The probability of answering a whole question of a JSONL file. None = it does if it knows the
    answer to each sub-question, and these are no more than `hops`."""


@dataclass(frozen=True, slots=True)
class SimulatedReply:
    """A reply with its token counts."""

    text: str
    answer: str | None
    """The bare answer in the text; None when it abstains."""
    knows: bool
    """Whether the answer rests on known facts alone. A guess can be right, too."""
    input_tokens: int
    output_tokens: int
    cut: bool
    """Whether the text was cut at `max_tokens`."""


@dataclass(frozen=True)
class _Mind:
    """The parts of a candidate's record that its replies depend on."""

    name: str
    accuracy: tuple[tuple[str, float], ...]
    options: SimulatedOptions
    max_tokens: int


def options_of(candidate: Candidate) -> SimulatedOptions:
    """Return the validated options of a simulated candidate.

    Raises:
        PoolError: An option is unknown or has an impossible value, or a benchmark is above 1.
    """
    options = read_options(candidate, SimulatedOptions)
    for domain, score in candidate.benchmarks.items():
        if score > 1:
            raise PoolError(
                f"candidate {candidate.name!r}: benchmarks.{domain} is {score!r}, but a simulated "
                "candidate knows a share between 0 and 1 of the facts of a domain"
            )
    return options


def reply_text_and_tokens(candidate: Candidate, query: str) -> SimulatedReply:
    """Return the reply of a simulated candidate to a query, with its tokens. Pure.

    Input tokens are those of the query as the only message.
    """
    return _reply(_mind_of(candidate), query)


def count_tokens(text: str) -> int:
    """Return about how many tokens a text has: words, pieces of long words, and punctuation."""
    return sum(1 + (len(word) - 1) // 8 for word in _TOKENS.findall(text))


#: Tokens that a chat template adds to each message.
MESSAGE_TOKENS = 4
_TOKENS = re.compile(r"\w+|[^\w\s]")
_minds: dict[int, tuple[Candidate, _Mind]] = {}


def _mind_of(candidate: Candidate) -> _Mind:
    # Records are frozen but not hashable. Keeping the record alive keeps its id from being reused.
    kept = _minds.get(id(candidate))
    if kept is None:
        if len(_minds) > 4096:
            _minds.clear()
        options = options_of(candidate)
        skills = candidate.benchmarks if options.skills is None else options.skills
        mind = _Mind(
            name=candidate.name,
            accuracy=tuple(skills.items()),
            options=options.model_copy(update={"skills": None}),  # it is hashed
            max_tokens=candidate.max_tokens,
        )
        kept = _minds[id(candidate)] = (candidate, mind)
    return kept[1]


@lru_cache(maxsize=1 << 17)
def _reply(mind: _Mind, query: str) -> SimulatedReply:
    options = mind.options
    question = read(known_world(options.facts), query)
    if question is None:
        answer, knows, text = None, False, UNCLEAR
    else:
        answer, knows = _answer(mind, question)
        draw = int(fraction("wording", mind.name, query) * 1000)
        text = UNKNOWN[options.style] if answer is None else wrap(answer, options.style, draw)
    if options.hostile:
        text = wrap_hostile(text, decoy="Nobody")
    tokens = count_tokens(text)
    cut = tokens > mind.max_tokens
    if cut:
        text = _first_tokens(text, mind.max_tokens)
        tokens = count_tokens(text)
    return SimulatedReply(text, answer, knows, count_tokens(query) + MESSAGE_TOKENS, tokens, cut)


def _answer(mind: _Mind, question: Structure | Decomposed) -> tuple[str | None, bool]:
    """Return the answer (None: abstains) and whether it rests on known facts alone."""
    if isinstance(question, Decomposed):
        if not question.parts:
            return _belief(mind, Ask(question.kind, question.question))
        if _knows_whole(mind, question):
            return question.answer, True
        return _guess(mind, question.question, question.kind, question.answer), False
    if hops(question) > mind.options.hops:
        return (None if mind.options.unknown == "abstain" else _overwhelmed(mind, question)), False
    known: dict[Ask, str] = {}
    certain = True
    while not isinstance(plan := next_steps(question, known), str):
        for step in plan:
            believed, certain_of_it = _belief(mind, step)
            if believed is None:
                return None, False
            known[step] = believed
            certain = certain and certain_of_it
    return plan or None, certain


def _knows_whole(mind: _Mind, question: Decomposed) -> bool:
    if mind.options.whole is not None:
        return fraction("whole", mind.name, question.question) < mind.options.whole
    leaves = list(question.leaves())
    return len(leaves) <= mind.options.hops and all(
        _belief(mind, Ask(leaf.kind, leaf.question))[1] for leaf in leaves
    )


def _overwhelmed(mind: _Mind, question: Structure) -> str | None:
    """Guess at a question with too many hops: the result of its first hop, or a toss of a coin."""
    match question:
        case Ask() | Both():
            steps = next_steps(question, {})
            return steps if isinstance(steps, str) else _belief(mind, steps[0])[0]
        case Compare(sides=sides):
            names = [side for side in sides if isinstance(side, str)]
            return names[int(_coin(mind, question) * len(names))] if names else None
        case Between():
            return str(1 + int(_coin(mind, question) * 200))
        case _:
            return YES if _coin(mind, question) < 0.5 else NO


def _coin(mind: _Mind, question: Structure) -> float:
    return fraction("guess", mind.name, repr(question))


def _belief(mind: _Mind, step: Ask) -> tuple[str | None, bool]:
    """Return the object of one fact as the candidate believes it, and whether that is right."""
    world = known_world(mind.options.facts)
    subject = str(step.subject)
    fact = world.lookup(subject, step.relation)
    if fact is not None:
        accuracy = dict(mind.accuracy).get(fact.domain, mind.options.elsewhere)
        if fraction(mind.name, fact.subject, fact.relation) < accuracy:
            return fact.object, True
    return _guess(mind, subject, step.relation, fact.object if fact else None), False


def _guess(mind: _Mind, subject: str, relation: str, right: str | None) -> str | None:
    """Return a wrong object of a relation, always the same for a subject; None: it abstains."""
    if mind.options.unknown == "abstain":
        return None
    world = known_world(mind.options.facts)
    others = [name for name in world.objects(relation) if name != right]
    if not others:
        return None
    return others[int(fraction("wrong", mind.name, subject, relation) * len(others))]


def _first_tokens(text: str, limit: int) -> str:
    used = 0
    for word in _TOKENS.finditer(text):
        used += count_tokens(word.group())
        if used > limit:
            return text[: word.start()].rstrip()
    return text
