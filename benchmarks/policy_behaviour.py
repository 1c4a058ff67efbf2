"""What a policy does where nobody can help, and in other words; whom it asks most; its speed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from router_r1_graph import Trace
from router_r1_graph.answers import contains, exact_match, is_abstention, normalize_answer
from router_r1_graph.evaluation.statistics import Bootstrap

from .policy_bench import POLICY, Bench
from .policy_comparisons import Finding
from .policy_questions import NotRunError
from .policy_speed import speed

_NOBODY = re.compile(
    r"\b(?:cannot|can't|unable|unknown|nobody|no ?one|none|no candidate|not (?:known|sure|certain|"
    r"possible|available)|do(?:es)? not know|don't know)\b",
    re.IGNORECASE,
)


def invented(trace: Trace) -> bool:
    """Return whether nobody gave the answer of a run.

    It is no form of "unknown", it stands in no reply of a candidate in this run and not in the
    question, and it is not the one right answer (the gold answer, where there is one).
    """
    answer = trace.answer
    if is_abstention(answer) or _NOBODY.search(answer) or not normalize_answer(answer):
        return False
    said = [trace.question, *(call.reply for call in trace.calls)]
    given = any(contains(text, [answer]) for text in said)
    return not given and not exact_match(answer, trace.gold)


def nothing_to_route(bench: Bench) -> Iterator[Finding]:
    """Measure how often a fact is invented where nobody in the pool can help."""
    traces = bench.traces(POLICY, "nothing")
    share = Bootstrap(len(traces)).mean([float(invented(trace)) for trace in traces])
    asked = np.mean([bool(trace.calls) for trace in traces])
    text = f"{share} of {len(traces)} questions; somebody was asked in {asked:.2f}"
    yield Finding(text, share.mean <= 0.05)


def two_wordings(bench: Bench) -> Iterator[Finding]:
    """Compare whom a policy asks when the same question comes in another wording."""
    sets = [
        [set(bench.column(POLICY, run).asked[place]) for place in places]
        for run, places in zip(("known", "test"), bench.both("known", "test"), strict=True)
    ]
    same = [float(a == b) for a, b in zip(*sets, strict=True)]
    share = Bootstrap(len(same)).mean(same)
    text = f"{share} of {len(same)} pairs, in a known and in a test wording"
    yield Finding(text, share.mean >= 0.9)


def most_asked(bench: Bench) -> Iterator[Finding]:
    """Compare the share of the most-asked candidate with the oracle's."""
    (who, share), (theirs, limit) = (
        bench.column(POLICY, "known").top,
        bench.oracle("known").top,
    )
    text = f"{who} {share:.3f}; the oracle's {theirs} {limit:.3f}"
    yield Finding(text, abs(share - limit) <= 0.1)


def speeds(bench: Bench) -> Iterator[Finding]:
    """Measure the speed in a fresh process on two cores, and on a GPU where there is one."""
    cpu, gpu = speed(bench.policies[POLICY], "cpu"), speed(bench.policies[POLICY], "cuda")
    if cpu is None:
        raise NotRunError("the process that measures failed; its error stands above")
    busy = f"load average {cpu.load_average:.1f} before"
    yield Finding(
        f"{cpu.load_seconds:.1f} s, after {cpu.import_seconds:.1f} s of imports; {busy}",
        cpu.load_seconds <= 5,
    )
    yield Finding(f"{cpu.first_seconds:.1f} s", cpu.first_seconds <= 6)
    yield Finding(
        f"{cpu.together / cpu.alone:.1f}x: {cpu.together:.2f} against {cpu.alone:.2f} questions/s",
        cpu.together >= 4 * cpu.alone,
    )
    if gpu is None:
        yield Finding("not run: there is no GPU here")
    else:
        yield Finding(
            f"{gpu.device}: loads in {gpu.load_seconds:.1f} s, first answer "
            f"{gpu.first_seconds:.1f} s, {gpu.alone:.2f} and {gpu.together:.2f} questions/s",
            True,
        )
