"""`router-r1 ask --route-only`, `--explain`: a controller's choices and reasons as tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from ..console import make_console, print_line
from ..invalid import masked
from ..words import plain, rounded, shortened, usd
from .options import load_controller, loading, note_simulated, print_json

if TYPE_CHECKING:
    from ..candidates import CandidatePool
    from ..candidates.store import ReplyStore
    from ..context import RouterContext
    from ..controllers.choice import Choice, Effect
    from ..routing.planned_calls import PlannedCall, Routing

_NOTHING = ("          ", "")
"""The label of a continued line."""
_SEEN = 0.01
"""The least change of a probability that gets a word."""
_RIVAL = 0.05
"""The least change of another candidate's probability that gets a sentence."""
_MARKED = 3
"""How many of the largest effects are marked."""
_REASONS = 12
"""How many features of the replies are shown."""
_UNITS = {
    "probability": "the probability that each candidate is named here",
    "utility": "the utility of each: predicted score less cost, by the cost weight",
    "usd_per_mtok": "the price of each, USD per 1M tokens in + out: the lowest is asked first",
}


def show_routing(
    question: str,
    pool: CandidatePool,
    spec: str | None,
    context: RouterContext,
    as_json: bool,
    explain: bool,
    replies: ReplyStore | None,
) -> None:
    """Print the candidates that the controller would ask first, and ask none."""
    with loading(masked(spec or "the controller")):
        from ..ledger import total
        from ..routing.first_turn import route_only
        from ..transcript import Transcript

        controller = load_controller(spec, pool, context)
    note_simulated(pool)
    with loading("the turn"):
        routing = route_only(
            pool, controller, question, context=context, replies=replies, explain=explain
        )
    if as_json:
        print_json(routing.summary())
        return
    console = make_console()
    transcript = Transcript(console, pool)
    transcript.question(question)
    for thought in routing.thoughts:
        print_line(console, ("think     ", "magenta"), (thought, "dim"))
    unread = [routing.leaning] if routing.leaning and routing.answer is None else []
    for call in (*routing.calls, *unread):
        _show_call(console, routing, call)
    if routing.calls and not any(call.choice for call in routing.calls):
        words = "does not tell how likely the others were; only its choice is known"
        print_line(console, _NOTHING, (f"{routing.controller} {words}", "dim"))
    for mistake in routing.mistakes:
        print_line(console, ("not done  ", "yellow"), (mistake, "yellow"))
    if routing.answer is not None:
        transcript.answer(routing.answer)
    if routing.stop_reason:
        transcript.stopped(routing.stop_reason, routing.error)
    else:
        print_line(console, ("stopped   ", "dim"), ("--route-only: no candidate was asked", "dim"))
    transcript.bill(total(routing.ledger), routing.ledger)
    show_explained(console, [routing] if explain else [])


def _show_call(console: Console, routing: Routing, call: PlannedCall) -> None:
    """Print a call and, if known, how likely each candidate was."""
    price = "" if call.worst_case_usd is None else f"  [at most {usd(call.worst_case_usd)}]"
    print_line(
        console,
        ("route     ", "cyan"),
        (f"{call.candidate}: ", "bold"),
        (shortened(call.query), ""),
        (price, "dim"),
    )
    if call.refused:
        print_line(console, ("not done  ", "yellow"), (call.refused, "yellow"))
    choice = call.choice
    if choice is None:
        return
    print_line(console, _NOTHING, (_UNITS[choice.unit], "dim"))
    for name, value in sorted(choice.values.items(), key=lambda item: _order(choice, item[1])):
        style = "bold" if name == call.candidate else ""
        asked = "  asked" if name == call.candidate else ""
        row = f"{_fitted(name, choice.values)}  {_number(choice, value)}"
        bar = "  " + "#" * round(20 * value) if choice.unit == "probability" else ""
        print_line(console, _NOTHING, (row, style), (bar, "cyan"), (asked, "bold"))
    if choice.pool_probability is not None and choice.pool_probability < 1 - _SEEN:
        share = rounded(choice.pool_probability, 3)
        words = f"as shares: the pool's names together have {share}, other words the rest"
        print_line(console, _NOTHING, (words, "dim"))
    if choice.pool_probability is not None and _named_before(routing, call):
        print_line(console, _NOTHING, (f"{_said(call)}: these come after it", "dim"))


def _named_before(routing: Routing, call: PlannedCall) -> bool:
    name = re.compile(rf"(?<!\w){re.escape(call.candidate)}(?!\w)", re.IGNORECASE)
    return any(name.search(thought) for thought in routing.thoughts)


def _said(call: PlannedCall) -> str:
    return f"the thought names {call.candidate} already"


def _order(choice: Choice, value: float) -> float:
    return value if choice.unit == "usd_per_mtok" else -value


def _number(choice: Choice, value: float) -> str:
    return f"${plain(value)}" if choice.unit == "usd_per_mtok" else rounded(value, 3)


def _fitted(name: str, names: Iterable[str], most: int = 28) -> str:
    """Return a name as wide as the widest, or cut."""
    width = min(most, max(map(len, names)))
    return f"{name if len(name) <= width else name[: width - 3] + '...':<{width}}"


def show_explained(console: Console, turns: Sequence[Routing]) -> None:
    """Print the effect of each descriptor's parts on each call of some turns, or the reasons."""
    for turn in turns:
        _show_reasons(console, turn)
        for call in turn.calls:
            if call.choice:
                _explain(console, turn, call, call.choice)


def _show_reasons(console: Console, turn: Routing) -> None:
    """Print the features of the replies that count most."""
    if not turn.reasons:
        return
    label = ("explain   ", "bold magenta")
    known = turn.reasons[0].value is not None
    of = shortened(turn.answer) if turn.answer else "the answer"
    print_line(console, label, (f"what speaks for {of} (+), and what against it (-)", "bold"))
    for reason in turn.reasons[:_REASONS]:
        counts = reason.weight * (1.0 if reason.value is None else reason.value)
        parts = f"  = {rounded(reason.value or 0, 2)} x {rounded(reason.weight, 2, '+')}"
        row = f"{rounded(counts, 2, '+'):>7}  {reason.feature}"
        print_line(console, _NOTHING, (row, ""), (parts if known else "", "dim"))
    words = "Log-odds that it is right: " + (
        "value x weight of each feature of the replies" if known else "the weights, at a value of 1"
    )
    words += f"; the {_REASONS} largest of {len(turn.reasons)}."
    print_line(console, _NOTHING, (words, "dim"))


def _explain(console: Console, turn: Routing, call: PlannedCall, choice: Choice) -> None:
    label = ("explain   ", "bold magenta")
    print_line(console, label, (f"{call.candidate}: {shortened(call.query)}", "bold"))
    if not call.effects:
        print_line(console, _NOTHING, ("the policy's prompt shows no descriptors", "dim"))
        return
    largest = sorted(call.effects, key=lambda effect: -abs(effect.change))[:_MARKED]
    marked = [effect for effect in largest if abs(effect.change) >= _SEEN]
    for name, probability in choice.values.items():
        print_line(
            console,
            _NOTHING,
            (f"{_fitted(name, choice.values)}  {rounded(probability, 3)}  ", "bold"),
            (turn.descriptors.get(name, ""), ""),
        )
        parts: list[tuple[str, str]] = []
        for effect in call.effects:
            if effect.candidate == name:
                mark, style = ("*", "bold yellow") if effect in marked else ("", "dim")
                parts.append((", " if parts else "without: ", "dim"))
                parts.append((f"{effect.part} {rounded(effect.change, 3, '+')}{mark}", style))
        print_line(console, (" " * 12, ""), *parts)
    for sentence in _sentences(turn, call, choice):
        print_line(console, _NOTHING, (sentence, ""))
    words = "Occlusion: one part at a time is taken out of the prompt, and the probability of its "
    words += "candidate is read again; the policy's own words before the name stay. Parts that "
    words += "only count together do not show. * = the largest changes."
    if any("price unknown" in effect.without for effect in call.effects):
        words += " A price that is taken out reads 'price unknown'."
    elif any(effect.part == "price" for effect in call.effects):
        words += " A price that is taken out reads as price level 0."
    print_line(console, _NOTHING, (words, "dim"))


def _sentences(turn: Routing, call: PlannedCall, choice: Choice) -> list[str]:
    """Return in plain English the reasons for and against the candidate that is asked."""
    own = [effect for effect in call.effects if effect.candidate == call.candidate]
    if call.candidate not in choice.values:
        return [f"The pool has no {call.candidate}, so no descriptor speaks for it."]
    now = rounded(choice.values[call.candidate], 3)
    sentences = []
    if _named_before(turn, call):
        sentences.append(f"Note that {_said(call)}: much of the choice was made there.")
    speaks_for = min(own, key=lambda effect: effect.change, default=None)
    if speaks_for and speaks_for.change <= -_SEEN:
        sentences.append(_sentence("for", speaks_for, now))
    against = max(own, key=lambda effect: effect.change, default=None)
    if against and against.change >= _SEEN:
        sentences.append(_sentence("against", against, now))
    if max((abs(effect.change) for effect in own), default=0.0) < _SEEN:
        sentences.append(
            f"No single part of {call.candidate}'s descriptor changes its probability of {now} by "
            f"{_SEEN} or more."
        )
    others = [effect for effect in call.effects if effect.candidate != call.candidate]
    rival = max(others, key=lambda effect: effect.change, default=None)
    if rival and rival.change >= _RIVAL:
        before = rounded(choice.values[rival.candidate], 3)
        sentences.append(_sentence("against", rival, before))
    return sentences


def _sentence(which: str, effect: Effect, now: str) -> str:
    part = effect.part if effect.part in ("price", "latency") else repr(effect.part)
    return (
        f"What speaks most {which} {effect.candidate} is its {part}: without it, the probability "
        f"would be {rounded(effect.probability, 3)} instead of {now}."
    )
