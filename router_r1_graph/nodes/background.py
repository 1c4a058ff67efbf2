"""The text that a candidate sees besides its query.

Source: RCR-Router (arXiv 2508.04903) scores memories by the role of the agent that is asked, within
a budget of tokens. Here the score is the number of words shared with the query and the candidate's
strengths, and nothing is learned.
"""

from __future__ import annotations

import re

from langchain_core.messages import ToolMessage

from ..candidates import Candidate
from ..candidates.usage import estimate_tokens
from ..controllers.controller import View
from ..observations import kept


def background(candidate: Candidate, query: str, view: View) -> str:
    """Return the text that a candidate sees besides its query, by `candidate_context`; "" = none.

    A candidate that is asked the whole question writes the answer, so it sees the system messages.
    Tools and retrievers see nothing else: they can read only a query.
    """
    policy = view.context.candidate_context
    if candidate.kind in ("tool", "retriever"):
        return ""
    lines = [view.instructions] if view.instructions and query == view.question else []
    if policy == "query":
        return "\n".join(lines)
    lines.append(f"The query is a part of this question: {view.question}")
    if policy == "memory" and (known := _remember(candidate, query, view)):
        lines += ["What is known so far:", *known]
    return "\n".join(lines)


def _remember(candidate: Candidate, query: str, view: View) -> list[str]:
    """Return the queries and replies that fit best, within the budget, in the order made."""
    made = dict.fromkeys(
        f"- {m.artifact['query']} {reply}"
        for m in view.scratchpad
        if isinstance(m, ToolMessage) and (reply := kept(m))
    )
    wanted = _words(" ".join([query, *candidate.strengths]))
    # If two fit equally well, the later one: a query mostly builds on what was learned just before.
    ranked = sorted(enumerate(made), key=lambda n: (-len(wanted & _words(n[1])), -n[0]))
    tokens_left = view.context.memory_tokens
    chosen = []
    for place, text in ranked:
        if (tokens := estimate_tokens(text)) <= tokens_left:
            tokens_left -= tokens
            chosen.append((place, text))
    return [text for _, text in sorted(chosen)]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.casefold()))
