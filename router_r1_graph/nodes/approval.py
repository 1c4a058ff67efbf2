"""A person in the loop: the request of a call that waits, and the person's decision.

Both come in two forms: our own, and that of LangChain's `HumanInTheLoopMiddleware`, which agent
chat UIs draw (`action_requests`, `review_configs`; `decisions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..candidates import CandidatePool
from ..candidates.failures import ReplyError
from ..candidates.reply import Reply
from ..outside import writable
from ..state import RouteCall
from ..words import usd

_DECISIONS = ("approve", "edit", "reject", "respond")
_INBOX = {"accept": "approve", "ignore": "reject", "response": "respond"}
"""The same decisions in the words of the earlier agent inbox."""


@dataclass(frozen=True)
class Ruling:
    """A person's decision on a call."""

    call: RouteCall
    """The call to make: as it was, or as it was edited."""
    reply: Reply | None = None
    """The text in place of the candidate's reply, if the call is not made."""


def request(call: RouteCall, candidate: str, router: str, question: str) -> dict[str, Any]:
    """Return the value of the interrupt of a call that waits."""
    args = {"query": call["query"]}
    if call["background"]:
        args["background"] = call["background"]
    most = call["worst_case_usd"]
    costs = "has no price" if most is None else f"may cost {usd(most, exact=True)}"
    why = f"{router} asks {candidate}, which {costs}.\n\nQuestion: {question}"
    return {
        "router": router,
        "question": question,
        "candidate": candidate,
        "query": call["query"],
        "background": call["background"],
        "worst_case_usd": most,
        "action_requests": [{"name": candidate, "args": args, "description": why}],
        "review_configs": [{"action_name": candidate, "allowed_decisions": list(_DECISIONS)}],
    }


def decide(said: object, call: RouteCall, pool: CandidatePool) -> Ruling:
    """Read a person's answer; anything but an approval, an edit or a reply is a refusal.

    Args:
        said: True, `{"approve": True}`, one decision, or `{"decisions": [decision]}`.
        call: the call that waits.
        pool: the candidates that an edited call may ask.
    """
    if isinstance(said, Mapping):
        said = said.get("decisions", said)
    if isinstance(said, list | tuple) and len(said) == 1:
        said = said[0]
    if said is True:
        return Ruling(call)
    if not isinstance(said, Mapping):
        return _refused(call)
    kind = str(said.get("type"))
    match _INBOX.get(kind, kind):
        case "approve":
            return Ruling(call)
        case "edit":
            return _edited(said, call, pool)
        case "reject":
            return _refused(call, said.get("message", said.get("args")))
        case "respond" if text := _text(said.get("message", said.get("args"))):
            return Ruling(call, Reply(text, attempts=0))
    return Ruling(call) if said.get("approve") is True else _refused(call)


def _edited(said: Mapping[str, Any], call: RouteCall, pool: CandidatePool) -> Ruling:
    """Return the call as a person edited it, within the budget."""
    action = said.get("edited_action", said.get("args"))
    action = action if isinstance(action, Mapping) else {}
    args = action.get("args")
    query = _text(args.get("query")) if isinstance(args, Mapping) else ""
    if not query:
        return _refused(call, "the edited call has no query")
    name = str(action.get("name", action.get("action", call["tool"])))
    candidate = pool.find(name)
    if candidate is None:
        return _refused(call, pool.unknown(name))
    price = candidate.worst_case_usd(call["background"] + query)
    most = call.get("most_usd")
    if most is not None and price > most:
        may, left = usd(price, exact=True), usd(most, exact=True)
        return _refused(call, f"the edited call may cost {may}, and only {left} are left")
    known = price if candidate.bounded else None
    return Ruling({**call, "tool": candidate.slug, "query": query, "worst_case_usd": known})


def _refused(call: RouteCall, why: object = "") -> Ruling:
    reason = f": {why}" if (why := _text(why)) else ""
    error = ReplyError("refused", f"refused by a person{reason}")
    return Ruling(call, Reply(attempts=0, error=error))


def _text(said: object) -> str:
    return writable(said).strip() if isinstance(said, str) else ""
