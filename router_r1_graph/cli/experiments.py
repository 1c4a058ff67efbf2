"""`router-r1 evaluate --langsmith`: the results of an evaluation as experiments of LangSmith."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def write_experiments(results: Path, controllers: Sequence[str], dataset: str) -> None:
    """Write one experiment for each controller and cost weight."""
    from langsmith import Client

    from ..cost_scales import AbsoluteCost
    from ..langsmith.experiments import write_experiment
    from ..trace import Trace, read_traces

    groups: dict[tuple[str, float], list[Trace]] = {}
    for trace in read_traces(results):
        if trace.controller in controllers:
            groups.setdefault((trace.controller, trace.context.cost_weight), []).append(trace)
    client = Client()
    for (controller, _), group in groups.items():
        name = write_experiment(group, dataset=dataset, client=client, scale=AbsoluteCost(1e-3))
        print(f"LangSmith: {controller} is experiment {name} of {dataset}", file=sys.stderr)
