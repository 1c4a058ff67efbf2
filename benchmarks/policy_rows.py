"""The rows of the table: each check with its bar, the runs that it reads, and what measures it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .policy_behaviour import most_asked, nothing_to_route, speeds, two_wordings
from .policy_bench import POLICY, WARM_START, Bench, Need
from .policy_comparisons import (
    Finding,
    against_controls,
    against_oracle,
    against_warm_start,
    controls,
    cost_weights,
    other_facts,
    real_questions,
)
from .policy_questions import WEIGHTS, weighted

_BETTER = "better, interval clear of zero"
_WEIGHTS = ", ".join(f"{weight:g}" for weight in WEIGHTS)


@dataclass(frozen=True)
class Row:
    """Checks that are measured together.

    Attributes:
        bars: each check and its bar.
        needs: the runs of a policy that are read.
        measure: returns a finding for each check, in their order.
    """

    bars: tuple[tuple[str, str], ...]
    needs: tuple[Need, ...]
    measure: Callable[[Bench], Iterable[Finding]]


def _oracle_row(what: str, run: str, share: float, most_cost: float) -> Row:
    bars = (
        (f"{what}: exact match", f"at least {share:.2f} of the oracle's"),
        (f"{what}: cost", f"at most {most_cost:g}x the oracle's"),
    )
    return Row(bars, ((POLICY, run),), partial(against_oracle, run, share, most_cost))


def rows_of(run_folder: Path | None) -> dict[str, Row]:
    """Return every row by its name; the curve is read from the folder of a training run."""
    known, test = (POLICY, "known"), (POLICY, "test")
    unseen = _oracle_row("unseen candidates only (a drawn pool each)", "unseen", 0.9, 1.4)
    return {
        "known": _oracle_row("known wordings", "known", 0.93, 1.2),
        "test": _oracle_row("test wordings", "test", 0.85, 1.3),
        "unseen": unseen,
        "shuffled": _oracle_row("order shuffled", "shuffled", 0.9, 1.4),
        "swapped": _oracle_row("names of cheap and expensive swapped", "swapped", 0.9, 1.4),
        "weights": Row(
            (
                (
                    f"cost at cost weight {_WEIGHTS}",
                    "no step rises clear of zero, nor from end to end",
                ),
                (
                    f"exact match at cost weight {_WEIGHTS}",
                    "no step loses over 40% of what is left",
                ),
                ("exact match at cost weight 0 against 0.5", "not below, clear of zero"),
            ),
            tuple((POLICY, weighted(weight)) for weight in WEIGHTS),
            cost_weights,
        ),
        "warm_start": Row(
            (
                ("reward against the warm start", _BETTER),
                ("share of the way from the warm start to the oracle", "at least a third"),
                ("curve over steps", "above where GRPO began"),
            ),
            (known, (WARM_START, "known")),
            partial(against_warm_start, run_folder),
        ),
        "controls": Row(
            tuple(
                (f"reward against {group}, {wording} wordings", _BETTER)
                for wording in ("known", "test")
                for group in controls()
            ),
            (known, test),
            against_controls,
        ),
        "decomposed": Row(
            (
                ("morehopqa and fanoutqa, exact match against the warm start", _BETTER),
                ("morehopqa and fanoutqa, exact match against every control", _BETTER),
            ),
            ((POLICY, "decomposed"), (WARM_START, "decomposed")),
            real_questions,
        ),
        "facts": Row(
            (("facts replaced: exact match", "within 3 points"),),
            (known, (POLICY, "facts")),
            other_facts,
        ),
        "nothing": Row(
            (("nothing to route: invented facts", "at most 5%"),),
            ((POLICY, "nothing"),),
            nothing_to_route,
        ),
        "robustness": Row(
            (("two wordings: the same candidates asked", "at least 0.90"),),
            (known, test),
            two_wordings,
        ),
        "most_asked": Row(
            (("share of the most-asked candidate", "within 10 points of the oracle's"),),
            (known,),
            most_asked,
        ),
        "speed": Row(
            (
                ("loads, on 2 cores", "within 5 s"),
                ("first answer of a two-hop question, on 2 cores", "within 6 s"),
                ("8 questions at once, on 2 cores", "at least 4x the rate of one at a time"),
                ("on a GPU", "its figures"),
            ),
            (),
            speeds,
        ),
    }
