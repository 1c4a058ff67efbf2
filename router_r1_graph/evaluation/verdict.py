"""The verdict of an evaluation in plain sentences: quality, cost, and doubts."""

from __future__ import annotations

from collections.abc import Sequence

from ..words import counted, plain, rounded, usd
from .statistics import Interval
from .summary import Summary, SummaryRow

AS_RIGHT = 0.05
"""A controller counts as right as another if it is at most this much worse, interval included."""
_ALIKE = 0.05
"""Costs that differ by less than this share count as the same."""
_FORM = 0.05
"""From this difference on, a warning says that answers are right in another form."""


def verdict(summary: Summary) -> list[str]:
    """Return sentences: which controllers beat the best single candidate in quality or cost.

    The first is the best candidate, the second the outcome; notes and warnings come last.
    """
    best = summary.best
    notes = [*summary.notes, *_silent(summary)]
    singles = [row for row in summary.rows if row.is_single]
    if best is None:
        why = (
            "Explored calls went to other candidates, so no candidate was asked alone"
            if any(row.explore for row in summary.rows)
            else "No candidate was asked alone"
        )
        return [f"{why}, and nothing is said about beating the best one.", *notes]
    name = best.name
    metric = summary.metric.replace("_", " ")
    score, cost = best.measures["score"].mean, best.measures["cost_usd"].mean
    lines = [
        f"{_who(singles)} is {name}: {metric} {rounded(score, 3)} at "
        f"${plain(1000 * cost, 3)} for 1,000 questions."
    ]
    if (unseen := _unseen(summary)) is not None:
        return [*lines, unseen, *notes, *_forms(summary, [])]
    rows = [row for row in summary.rows if not (row.is_control or row.is_single or row.error)]
    better = [row for row in rows if _is_better(row)]
    wins = [row for row in rows if _wins(row) and row not in better]
    if rows and not better:
        aside = sorted(
            {row.controller for row in summary.rows if row.is_control and _is_better(row)}
        )
        but = f" but {' and '.join(aside)}" if aside else ""
        lines.append(f"No controller{but} is better than {name} with its interval clear of zero.")
    if wins:
        said = ", ".join(f"{_called(row)} ({cost_words(row.cost_ratio)})" for row in wins)
        lines.append(f"As right for less money, which is a win: {said}.")
    lines += [_sentence(row, name) for row in rows]
    return [*lines, *notes, *_forms(summary, rows)]


def cost_words(ratio: Interval | None) -> str:
    """Return a ratio of costs in words; "" where it is not known.

    Example:
        >>> [cost_words(Interval(x, x, x)) for x in (0, 0.043, 0.72, 1.01, 2.3)]
        ['at no cost', 'at 1/23 of the cost', 'at 72% of the cost', 'at the same cost',
        'at 2.3 times the cost']
    """
    if ratio is None:
        return ""
    if ratio.mean == 0:
        return "at no cost"
    if abs(ratio.mean - 1) < _ALIKE:
        return "at the same cost"
    if ratio.mean > 1:
        return f"at {plain(ratio.mean, 2)} times the cost"
    if ratio.mean > 0.5:
        return f"at {ratio.mean:.0%} of the cost"
    return f"at 1/{1 / ratio.mean:,.0f} of the cost"


def difference(value: Interval | None, digits: int = 3) -> str:
    """Write a difference with its interval; "" where there is none."""
    if value is None:
        return ""
    mean, low, high = (rounded(v, digits, "+") for v in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def savings(summary: Summary) -> list[str]:
    """Return sentences on what was saved, and on what may be billed besides; [] = neither."""
    lines = []
    if summary.stored_calls:
        stored = counted(summary.stored_calls, "stored reply", "stored replies")
        lines.append(f"{stored} saved {usd(summary.saved_usd)}, which the costs include.")
    if summary.uncertain_usd:
        most = usd(summary.uncertain_usd)
        lines.append(f"The costs leave out up to {most} that no provider confirmed.")
    return lines


def _who(singles: Sequence[SummaryRow]) -> str:
    """Return the words for the best single candidate; without controls, they name those asked."""
    if any(row.is_control for row in singles):
        return "The best single candidate"
    if len(singles) == 1:
        return "The only single candidate asked"
    return f"The best of the {len(singles)} single candidates asked"


def _called(row: SummaryRow) -> str:
    return f"{row.controller} at cost weight {row.cost_weight:g}"


def _is_better(row: SummaryRow) -> bool:
    d = row.against_constant_best
    return d is not None and d.low > 0


def _as_right(row: SummaryRow) -> bool:
    d = row.against_constant_best
    return d is not None and d.low >= -AS_RIGHT and row.measures["score"].mean > 0


def _wins(row: SummaryRow) -> bool:
    """Whether it is as right for less money, and a random mix of candidates at its cost is not."""
    cheaper = row.cost_ratio is not None and row.cost_ratio.high < 1 - _ALIKE
    mix = row.against_matched_cost
    return _as_right(row) and cheaper and (mix is None or mix.low > 0)


def _sentence(row: SummaryRow, best: str) -> str:
    d = row.against_constant_best
    assert d is not None  # there is a best candidate
    if d.low > 0:
        how = f"better than {best}"
    elif d.high < 0:
        how = f"worse than {best}"
    elif _as_right(row):
        how = f"as right as {best}"
    else:
        how = f"not told apart from {best}"
    cost = cost_words(row.cost_ratio)
    text = f"{_called(row)} is {how}{cost and ', ' + cost}: {difference(d)}"
    mix = row.against_matched_cost
    if mix is not None and mix.low <= 0 and row.cost_ratio and row.cost_ratio.high < 1:
        how = "is better" if mix.high < 0 else "may be as good"
        text += f"; a random mix of candidates at its cost {how}: {difference(mix)}"
    return text + "."


def _unseen(summary: Summary) -> str | None:
    """Return the sentence for a metric by which every answer is wrong; None = one is not."""
    rows = [row for row in summary.rows if not row.error]
    if any(row.measures["score"].mean for row in rows):
        return None
    metric = summary.metric.replace("_", " ")
    if stating := max((row.measures["stated"].mean for row in rows), default=0.0):
        return (
            f"By {metric} no answer is right, so it does not say who is better; up to "
            f"{stating:.0%} of a controller's answers state a gold answer."
        )
    return (
        f"No metric sees a right answer: none is right by {metric}, and none states a gold answer. "
        "So nothing says who is better. Look at the answers and at the gold answers, or score them "
        "by a function of yours: --metric module:function."
    )


def _silent(summary: Summary) -> list[str]:
    return [
        f"{row.controller} has no answer, and its score says nothing: {row.error}."
        for row in summary.rows
        if row.error
    ]


def _forms(summary: Summary, rows: Sequence[SummaryRow]) -> list[str]:
    """Warn if the form of answers, rather than their content, decides the comparison."""
    if summary.metric not in ("exact_match", "f1"):
        return []
    lines = []
    for row in rows:
        ours, stated = row.against_constant_best, row.stated_against_best
        if ours is None or stated is None or ours.mean - stated.mean < _FORM:
            continue
        if ours.low > 0 and stated.low <= 0:
            lines.append(
                f"Warning: form explains why {_called(row)} is better. Where a sentence that "
                f"states the answer counts as well, the difference is {difference(stated)}."
            )
    singles = [r for r in summary.rows if r.is_single and not r.error]
    gaps = {r.controller: r.measures["stated"].mean - r.measures["score"].mean for r in singles}
    if gaps and max(gaps.values()) >= 2 * _FORM:
        who = max(gaps, key=lambda name: gaps[name])
        row = next(r for r in singles if r.controller == who)
        score, states = (rounded(row.measures[name].mean, 3) for name in ("score", "stated"))
        lines.append(
            f"Warning: answers of {who.removeprefix('constant:')} are right in a form that "
            f"{summary.metric} does not count ({score}; {states} state a gold answer). Ask for the "
            "answer alone by --system-prompt, or compare by --metric contains."
        )
    return lines
