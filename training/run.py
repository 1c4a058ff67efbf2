"""A run: its config, its files, its bill, and how it asks questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from router_r1_graph import CandidatePool, Controller, ReplyStore, Trace
from router_r1_graph.candidates.records import stored_records, write_records

from .config import RunConfig
from .errors import BudgetSpentError
from .files import append_line
from .history import read_lines
from .items import Item
from .measurement import share_out
from .models import processes
from .outcomes import Outcomes
from .own_graph import OwnGraph
from .rollouts import require_budget, roll_out
from .spending import Spending, StageBill


@dataclass(frozen=True)
class Run:
    """A run's config and the places of its files."""

    config: RunConfig

    @property
    def metrics(self) -> Path:
        """Every logged number, a JSON line each."""
        return self.config.out / "metrics.jsonl"

    def folder(self, stage: str) -> Path:
        """The folder of a stage's policy, checkpoints and traces."""
        return self.config.out / stage

    @cached_property
    def spending(self) -> Spending:
        """The bill of the run."""
        process = processes().process_index
        return Spending(self.config.out / "spending", self.config.budget_usd, process)

    @cached_property
    def replies(self) -> ReplyStore | None:
        """The store of replies; None if no real candidate is asked and no file is named."""
        config = self.config
        pools = [CandidatePool.from_yaml(name) for name in {*config.data.pools} - {"drawn"}]
        kinds = {candidate.provider for pool in pools for candidate in pool.candidates}
        judges = any(one.function == "llm_judge" for one in config.reward.functions)
        if config.replies.file is None and not judges and kinds <= {"simulated", "recorded"}:
            return None
        file = config.replies.file or config.out / "replies.sqlite"
        return ReplyStore(file, every=config.replies.every)

    @cached_property
    def outcomes(self) -> Outcomes:
        """Judges the traces, besides the metric."""
        config = self.config
        return Outcomes(config.reward, self.spending, config.folder, self.replies)

    @cached_property
    def graph(self) -> OwnGraph | None:
        """The user's own graph around the router; None = the router alone."""
        name = self.config.graph
        return OwnGraph(name, self.config.folder) if name else None

    def check(self) -> None:
        """Find the user's own code that the config names, before anything is paid.

        Raises:
            ConfigError: it is not there, or cannot be used.
        """
        _ = self.outcomes, self.graph

    def leave_records(self) -> Path | None:
        """Write the stored replies as records, for a recorded pool; return the file, if any."""
        if self.replies is None:
            return None
        file = self.config.out / "records.jsonl"
        write_records(file, stored_records(self.replies))
        return file

    def roll_out(
        self,
        stage: str,
        items: Sequence[Item],
        controller: Controller,
        *,
        name: str = "policy",
        judged: bool = True,
        done: Callable[[Trace], None] = lambda _: None,
    ) -> list[Trace]:
        """Run items, once the budget allows it, and put their cost on the bill.

        Args:
            stage: the stage's name on the bill.
            items: the questions.
            controller: the controller.
            name: the controller's name in the traces.
            judged: whether the traces get a reward; those that only show the format are runs of
                the router alone, and are not judged.
            done: gets each trace as soon as it is there.

        Raises:
            BudgetSpentError: the budget is spent.
        """
        if refused := self.spending.refusal(stage):
            raise BudgetSpentError(refused)
        return self._roll_out(stage, items, controller, name, done, judged=judged)

    def share_out(
        self,
        stage: str,
        items: Sequence[Item],
        controller: Controller,
        *,
        done: Callable[[Trace], None] = lambda _: None,
    ) -> list[Trace]:
        """Run items on all processes, as `roll_out` does on one; return all traces on each.

        Raises:
            BudgetSpentError: the budget is spent.
        """
        require_budget(self.spending, stage)
        return share_out(
            items, lambda ours: self._roll_out(stage, ours, controller, "policy", done)
        )

    def _roll_out(
        self,
        stage: str,
        items: Sequence[Item],
        controller: Controller,
        name: str,
        done: Callable[[Trace], None],
        *,
        judged: bool = True,
    ) -> list[Trace]:
        return roll_out(
            items,
            controller,
            name=name,
            replies=self.replies,
            graph=self.graph if judged else None,
            outcomes=self.outcomes if judged else None,
            done=done,
            bill=StageBill(self.spending, stage),
        )

    def log(self, stage: str, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line of metrics, on the first process."""
        if processes().is_main_process:
            append_line(self.metrics, {"stage": stage, "step": step, **numbers})

    def log_once(self, stage: str, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line of metrics, unless this run wrote it before it was killed."""
        ours = (stage, step, numbers.get("cost_weight"))
        lines = read_lines(self.metrics)
        if ours not in ((line["stage"], line["step"], line.get("cost_weight")) for line in lines):
            self.log(stage, step, numbers)

    def fit_options(self, stage: str, seed: int) -> dict[str, Any]:
        """Return the common options of every supervised fit of this run."""
        model = self.config.model
        return {
            "stage": stage,
            "metrics": self.metrics,
            "seed": seed,
            "bf16": model.bf16,
            "gradient_checkpointing": model.gradient_checkpointing,
            "lora_rank": model.lora_rank,
            "report_to": self.config.report_to,
        }
