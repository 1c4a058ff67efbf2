"""Our rollouts and TRL's own loop over environments do the same (`benchmarks.rollouts`)."""

import pytest

from extras import needs

needs("train")

import torch

from benchmarks.loops import compare, drawn_items, graph_loop
from benchmarks.rollouts import learner_of, main
from router_r1_graph.controllers.policy.folder import SHIPPED

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.mark.long
def test_both_loops_write_the_same_ids_and_ask_the_same_candidates(capsys):
    torch.set_num_threads(1)
    learner = learner_of(str(SHIPPED / "demo"))
    ours, theirs = compare(learner, questions=8, samples=2, repetitions=1, temperature=0.0)
    said = capsys.readouterr().out
    assert "loops over 8 questions" in said
    assert "(bar: at least 4)" in said
    assert ours.completions == theirs.completions
    assert ours.calls == theirs.calls
    assert ours.sampled_tokens == theirs.sampled_tokens > 100
    assert len({tuple(calls) for calls in ours.calls}) == 4
    assert all(ours.calls)
    # Whether batches wait for all turns changes when a turn is sampled, and not what it says.
    items = drawn_items(4, 2, latency=False)
    assert graph_loop(learner, items, temperature=0.0, wait=False).calls == ours.calls


def test_groups_that_cannot_be_filled_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--part", "loops", "--questions", "12"])
    assert "--questions is a multiple of 8" in capsys.readouterr().err
