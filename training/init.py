"""A commented config for a pool and a file of questions: `router-r1 train init`."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import yaml

from router_r1_graph import CandidatePool, ConfigError
from router_r1_graph.files import require_file

from .config import load_config
from .data_config import DataConfig
from .pools import has_free_price
from .questions import read_questions

_TEMPLATE = """\
# router-r1 train {file}
# Settings can be changed on the command line, such as: budget_usd=20 grpo.steps=300
# All settings: the page Configuration of the documentation, section Training.

out: {out}          # checkpoints, metrics, traces and the policy; run again, and it goes on
budget_usd: {budget}         # the most that the run pays, over all resumes
stages: [grpo]         # a pretrained model needs no warm start
evaluate_questions: {evaluate}  # held-out questions, asked at several cost weights when it is done
# report_to: [tensorboard]  # or trackio, wandb; metrics.jsonl and report.md are there anyway
# hub: {{repo: name/policy}}  # the policy is uploaded there at the end

model:
  pretrained: {model}  # a folder or a name on the Hugging Face hub
  max_new_tokens: 256
  max_context_tokens: 4096
  bf16: true           # compute in bfloat16; set it to false on a CPU
  lora_rank: 16        # 0 = train all weights, which takes several times the memory

data:
  source: files
  files: [{questions}]
  held_out: 0.1        # {held_out} of {count} questions are never trained on
  pools: [{pool}]
  vary: {vary}  # shares of questions whose pool differs, so that nothing is memorised
  cost_weights: [0, 0.25, 0.5, 0.75, 0.9]  # one policy for all of them

reward:
  metric: f1           # or exact_match
  scale: percentile    # the paper's; absolute, with usd: 0.001, sets the price of a right answer

grpo:
  steps: 200
  questions: 16        # in a step
  group: 8             # rollouts of each question: {rollouts} rollouts a step
  micro_batch: 16      # rows in a forward pass; lower it where memory runs out
  learning_rate: 1.0e-5
  validate_every: {every:<3}  # steps; the best weights are kept. 0 = no question is held out to ask
  patience: 4          # validations without a better one, then it stops
"""


def write_config(file: Path, *, pool: str, questions: Path, model: str, budget_usd: float) -> str:
    """Write a commented config, and return the next steps.

    Args:
        file: the file to write.
        pool: a pool file, or the name of a shipped pool.
        questions: JSON lines with question and golden_answers.
        model: the model to train.
        budget_usd: the most that the run pays.

    Raises:
        ConfigError: the file is there already or cannot be written, or the pool or the questions
            cannot be read.
    """
    if file.exists():
        raise ConfigError(f"{file}: is there already; name another file with --out")
    require_file("--out", file)
    candidates = CandidatePool.from_yaml(pool).candidates
    read = read_questions(DataConfig(source="files", files=(questions,), pools=(pool,)))
    vary = {"names": 0.5, "order": 0.5}
    if len(candidates) > 2:
        vary["subset"] = 0.5
    if any(map(has_free_price, candidates)):
        vary["prices"] = 0.5
    held_out = len(read.held_out)
    quoted = shlex.quote(str(file))
    text = _TEMPLATE.format(
        file=quoted,
        out=_scalar(f"runs/{file.stem}"),
        budget=f"{budget_usd:g}",
        evaluate=min(200, held_out),
        model=_scalar(model),
        questions=_scalar(str(questions)),
        pool=_scalar(pool),
        held_out=held_out,
        count=held_out + len(read.train),
        every=25 if held_out else 0,
        vary=yaml.safe_dump(vary, default_flow_style=True, sort_keys=False).strip(),
        rollouts=16 * 8,
    )
    file.write_text(text, encoding="utf-8")
    try:
        load_config(file)
    except ConfigError:
        file.unlink()
        raise
    return f"{file} is written: look it through, then run\n\n  router-r1 train {quoted}"


def _scalar(text: str) -> str:
    """Write a text as YAML."""
    return str(yaml.safe_dump([text], default_flow_style=True, width=math.inf)).strip()[1:-1]
