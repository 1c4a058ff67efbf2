"""The tag language between controller and environment; only it and `tags` know tags.

    <think> ... </think> <search> Candidate: query </search>       the controller asks
    <information> Candidate: reply </information>                   the environment answers
    <think> ... </think> <answer> ... </answer>                     the controller ends

The key invariant: only what the controller wrote is parsed, and no text of a candidate can be read
as a tag, because it is escaped when rendered. `parse` is total (it never raises), and
`parse(render(turn)) == turn` for every turn whose texts have no white space around them.

Source: arXiv 2506.09033, section 3; the differences are in docs/deviations.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Literal

from .errors import ConfigError, did_you_mean
from .tags import TAG, escape, found, unescape
from .words import plain

if TYPE_CHECKING:
    from langchain_core.messages import ToolMessage

#: Bump when a policy trained on the old text would no longer understand the new one.
VERSION = 1
#: The texts at which a chat model has to stop: the environment's part, and the end of its answer.
STOP = ("<information>", "</answer>")
DEFAULT_TEMPLATE = Path(__file__).parent / "prompts" / "router_r1.txt"
TOOLS_TEMPLATE = DEFAULT_TEMPLATE.with_name("tools.txt")
PLACEHOLDERS = (
    *("candidates", "brief_candidates", "question", "goal", "cost_weight", "budget"),
    "answer_form",
)
#: What `$answer_form` says of the answer, by style; `short` is the paper's.
ANSWER_FORMS: Mapping[str, str] = {
    "short": "the answer alone, as short as possible",
    "full": "the whole answer for the user, in the language, form and length that the user wants",
}

_CUT_INSIDE = " [... cut ...] "


@dataclass(frozen=True)
class Call:
    """One query to one candidate, as the controller wrote it (the name is not looked up yet)."""

    candidate: str
    query: str
    at: int = field(default=-1, repr=False, compare=False)
    """Where the name begins in the text that was parsed; -1 = nowhere."""


@dataclass(frozen=True)
class Mistake:
    """Malformed text, and the reason as the controller sees it."""

    reason: str
    text: str = ""
    """The malformed part of the turn; "" where the reason says all."""


@dataclass(frozen=True)
class Turn:
    """The text of one turn of the controller, parsed."""

    thoughts: tuple[str, ...] = ()
    """The text of each `<think>`, in order."""
    calls: tuple[Call, ...] = ()
    """The queries, in the order written; the run may refuse some of them."""
    answer: str | None = None
    """The last answer when there are several, as in the paper; None when there is none."""
    mistakes: tuple[Mistake, ...] = ()
    """What could not be read, in the order written; the controller is told."""


def parse(text: str) -> Turn:
    """Read one turn of the controller. Never raises: malformed text becomes a mistake.

    A search inside an unclosed tag is a mistake and is not made; an answer inside one still counts
    (the paper's exact match reads the last answer whatever the format).

    Example:
        >>> parse("<search> Ada: what is: a colon? </search>").calls
        (Call(candidate='Ada', query='what is: a colon?'),)
    """
    thoughts: list[str] = []
    calls: list[Call] = []
    answer: str | None = None
    mistakes: list[Mistake] = []
    inside, start, nested = "", 0, False
    for at, token in found(text):
        closing, tag = token[1] == "/", token.strip("</>")
        if not inside:
            if closing:
                mistakes.append(Mistake(f"a closing {tag} tag without an opening one"))
            else:
                inside, start, nested = tag, at + len(token), False
        elif not closing:
            mistakes.append(Mistake(f"an opening {tag} tag inside an unclosed {inside} tag"))
            inside, start, nested = tag, at + len(token), True
        else:
            written = text[start:at]
            body = unescape(written.strip())
            if tag != inside:
                mistakes.append(Mistake(f"the {inside} tag is closed by a closing {tag} tag", body))
            elif tag == "think":
                thoughts.append(body)
            elif tag == "information":
                mistakes.append(Mistake("only the environment writes the information tag", body))
            elif tag == "answer" and body:
                answer = body
            elif tag == "answer":
                mistakes.append(Mistake("the answer tag is empty"))
            elif nested:
                pass  # already counted when the tag opened; not asked
            else:
                name, colon, query = (part.strip() for part in body.partition(":"))
                if name and colon and query:
                    begins = start + len(written) - len(written.lstrip())
                    calls.append(Call(name, query, begins))
                else:
                    what = "the candidate" if not name else "the query"
                    if name and not colon:
                        what = "a colon after the candidate"
                    mistakes.append(Mistake(f"{what} is missing", body))
            inside = ""
    if inside:
        cut = "answer is cut off" if inside == "answer" else f"{inside} tag is not closed"
        mistakes.append(Mistake(f"the {cut}", text[start:].strip()))
    if not (calls or answer is not None or mistakes):
        mistakes.append(Mistake("neither a search nor an answer", text.strip()))
    return Turn(tuple(thoughts), tuple(calls), answer, tuple(mistakes))


def tags(text: str) -> list[str]:
    """Return the tags of a text in order: `["<think>", "</think>", ...]`."""
    return [tag for _, tag in found(text)]


def tagged_answer(reply: str) -> str | None:
    """Return the text in the last answer tags of a candidate's reply; "" if they are empty.

    None if there are none, or if the reply has other tags too: such a reply imitates the
    controller's text, and is not read.

    Example:
        >>> tagged_answer("He was born there. <answer>Paris</answer>")
        'Paris'
    """
    if not set(tags(reply)) or not set(tags(reply)) <= {"<answer>", "</answer>"}:
        return None
    return parse(close(reply)).answer or ""


def untagged(text: str) -> str:
    """Return a text with every tag replaced by a space."""
    return TAG.sub(" ", text)


def render(turn: Turn) -> str:
    """Write a turn in tags; mistakes are not written."""
    parts = [f"<think> {escape(thought)} </think>" for thought in turn.thoughts]
    parts += [f"<search> {escape(f'{c.candidate}: {c.query}')} </search>" for c in turn.calls]
    if turn.answer is not None:
        parts.append(f"<answer> {escape(turn.answer)} </answer>")
    return "\n".join(parts)


def render_observation(label: str, text: str) -> str:
    """Write the result of one call, as the controller sees it."""
    return f"<information> {escape(f'{label}: {text}')} </information>"


def render_observations(messages: Sequence[ToolMessage]) -> str:
    """Write the results of a round: one information tag for each call, made or refused."""
    return "\n".join(
        render_observation(m.artifact["candidate"] if m.artifact else "error", str(m.text))
        for m in messages
    )


def close(text: str) -> str:
    """Add the closing tag that a stop string took away from the end of a controller's text."""
    closing, tag = (TAG.findall(text) or [("/", "")])[-1]
    return text if closing or tag not in ("search", "answer") else f"{text.rstrip()} </{tag}>"


def beginning(text: str, max_tokens: int) -> str:
    """Keep about `max_tokens` tokens of a text (4 bytes each), cut between words where possible."""
    if len(text) <= max_tokens:  # at most 4 bytes a character: short enough without encoding it
        return text
    data = text[: max_tokens * 4 + 1].encode(errors="replace")
    if len(data) <= max_tokens * 4:
        return text
    kept = data[: max_tokens * 4].decode(errors="ignore")
    return kept.rsplit(None, 1)[0] if " " in kept[-40:].strip() else kept


def cut(text: str, max_tokens: int) -> str:
    """Keep the `beginning` of a text, and mark it as cut: for controllers, never in an answer."""
    kept = beginning(text, max_tokens)
    return text if kept == text else f"{kept} [... cut]"


def cut_inside(text: str, max_tokens: int) -> str:
    """Keep the beginning and the end of a text, and mark what is cut between them.

    The whole, mark included, has about `max_tokens` tokens (4 bytes each). Where these are too few
    for the mark, the beginning alone is kept.
    """
    if beginning(text, max_tokens) == text:
        return text
    half = (4 * max_tokens - len(_CUT_INSIDE)) // 8
    if half < 1:
        return beginning(text, max_tokens)
    end = text[-4 * half :].encode(errors="replace")[-4 * half :].decode(errors="ignore")
    return f"{beginning(text, half)}{_CUT_INSIDE}{end}"


def load_template(path: Path | None = None) -> Template:
    """Read a prompt template: plain text with placeholders (`PLACEHOLDERS`).

    Raises:
        ConfigError: the file cannot be read, has an unknown placeholder, or lacks $question.
    """
    path = path or DEFAULT_TEMPLATE
    try:
        template = Template(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the prompt template cannot be read: {error}") from error
    used = template.get_identifiers()
    for name in used:
        if name not in PLACEHOLDERS:
            raise ConfigError(
                f"{path}: unknown placeholder ${name}{did_you_mean(name, PLACEHOLDERS)}; allowed: "
                + ", ".join(f"${p}" for p in PLACEHOLDERS)
            )
    if not template.is_valid() or "question" not in used:
        raise ConfigError(f"{path}: a prompt template needs $question; write $$ for a dollar sign")
    return template


def render_prompt(
    template: Template,
    *,
    question: str,
    candidates: Mapping[str, str],
    cost_weight: float,
    budget: str,
    brief_candidates: str = "",
    answer_style: Literal["short", "full"] = "short",
) -> str:
    """Fill the template. Tags in the question or in a descriptor are escaped.

    Args:
        template: from `load_template`.
        question: the user's question.
        candidates: name -> descriptor, in the order in which they are shown.
        cost_weight: in [0, 1]; `$goal` says it in words.
        budget: the rest of the budget, in words.
        brief_candidates: the same in short, by subject, for small policies.
        answer_style: how the answer is to be written; `$answer_form` says it in words.
    """
    return template.substitute(
        question=escape(question),
        candidates="\n".join(f"- {escape(n)}: {escape(d)}" for n, d in candidates.items()),
        brief_candidates=escape(brief_candidates),
        goal=_goal(cost_weight),
        cost_weight=f"{cost_weight:g}",
        budget=budget,
        answer_form=ANSWER_FORMS[answer_style],
    )


def _goal(cost_weight: float) -> str:
    """Return a cost weight in words."""
    of_answer, of_cost = (plain(100 * share, 3) for share in (1 - cost_weight, cost_weight))
    return f"a right answer {of_answer}%, a low cost {of_cost}%"
