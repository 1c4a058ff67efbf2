"""Train a policy that routes: the program behind `router-r1 train` and `training/finetune.py`.

Stages: `warm_start` (SFT on the teacher's traces), `best_of_n` (learn the best of n sampled
traces), `grpo` (TRL's GRPOTrainer with runs of the compiled graph). If you run it again, it goes on
where it stopped; the policy folder at the end is a normal Hugging Face model.

Examples:
    router-r1 train smoke
    router-r1 train train.yaml budget_usd=20 out=runs/mine
    python training/finetune.py --config training/configs/demo.yaml grpo.steps=100
    torchrun --nproc_per_node 2 training/finetune.py --config training/configs/demo.yaml
    router-r1 ask "Who wrote Hamlet?" --controller policy:runs/smoke/policy
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see router_r1_graph/controllers/policy

from router_r1_graph import ConfigError, RouterR1Error
from router_r1_graph.errors import did_you_mean
from router_r1_graph.files import only_writer, write_whole

from .config import RunConfig, load_config
from .files import read_whole
from .record import changes, remember
from .signals import silence, take_signals

CONFIGS = Path(__file__).parent / "configs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages of a config; return the exit status.

    Args:
        arguments: of the command line; None = this process's.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers about TRL, each step
    warnings.filterwarnings("ignore", message="Could not find a config file in package:")  # PEFT
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    given = parser.parse_args(arguments)
    take_signals()
    try:
        config = load_config(_file(given.config), given.overrides)
        with _only_run_in(config.out):
            return run_stages(config)
    except RouterR1Error as error:
        print(f"train: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except BrokenPipeError:
        silence(sys.stdout)  # else Python says so once more at its end
        print(
            "train: the reader of standard output is gone; run again to go on from the last "
            "checkpoint",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        print(
            f"train: {error}; what was written before is intact: see to it, run again to go on",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("train: stopped; run again to go on from the last checkpoint", file=sys.stderr)
        return 130


def _file(config: Path) -> Path:
    """Return the file of a config, which may be the name of a shipped one.

    Raises:
        ConfigError: there is none.
    """
    if config.exists():
        return config
    shipped = {file.stem: file for file in sorted(CONFIGS.glob("*.yaml"))}
    if str(config) in shipped:
        return shipped[str(config)]
    near = did_you_mean(str(config), [*shipped, "init", "report"])  # or a command of `train`
    known = ", ".join(shipped)
    raise ConfigError(f"{config}: no such config file{near}; or name a shipped one: {known}")


def run_stages(config: RunConfig) -> int:
    """Run the stages that are not done yet, and write the policy folder and the report."""
    import torch
    from transformers.utils import logging

    from . import stages
    from .best_of_n import best_of_n
    from .hub import require_token, upload
    from .models import finish, load_learner, processes, refuse_sharding
    from .questions import check_questions
    from .report import next_step, told, write_card, write_report
    from .run import Run
    from .trackers import require_trackers

    gc.freeze()  # what is imported stays: no collection has to look at its many objects again
    refuse_sharding()
    main = processes().is_main_process  # of those that torchrun or accelerate started
    # Before anything is paid.
    questions = check_questions(config.data, config.held_out_questions)
    require_trackers(config.report_to)
    require_token(config.hub)
    changed = changes(config)
    if main:
        print(questions)
        if changed:
            print(f"settings that count from here on: {', '.join(changed)}")
        remember(config)
    logging.disable_progress_bar()  # of loading and saving; training keeps its own
    if config.threads:
        torch.set_num_threads(config.threads)
    run = Run(config)
    run.check()
    measured: dict[str, list[dict[str, float]]] = {}
    learner = None
    before = None  # the folder of the last stage that was done in another process
    for stage in config.stages:
        folder = run.folder(stage)
        done = folder / "done.json"
        if (rows := read_whole(done)) is not None:
            measured[stage] = rows
            before = folder / "policy"
            if main:
                print(f"{stage}: done before")
            continue
        if main:
            print(f"{stage} ...")
        if stage == "warm_start":
            learner = stages.warm_start(run)
        else:
            learner = learner or load_learner(config.model, before)
            step = best_of_n if stage == "best_of_n" else stages.grpo
            learner = step(run, learner)
        if main:
            learner.save(folder / "policy")
        measured[stage] = stages.measure(run, learner, stage)
        if main:
            write_whole(done, json.dumps(measured[stage]))
            if stage != config.stages[-1]:  # whose report is written below
                write_report(config.out)
            for line in told(stage, measured[stage]):
                print(line)
        processes().wait_for_everyone()
    if not main:
        return 0
    learner = learner or load_learner(config.model, before)
    policy = config.out / "policy"
    finish(learner, config.model)
    learner.save(policy)
    write_card(config.out, policy)
    print(f"{write_report(config.out)}: curves, held-out questions and cost")
    if records := run.leave_records():
        print(f"{records}: what was paid for, as records of a pool that replays it")
    print(f"\n{next_step(measured, policy)}")
    if config.hub.repo:
        print(f"uploaded: {upload(config.hub, policy)}")
    return 0


def _only_run_in(folder: Path) -> AbstractContextManager[None]:
    """Make a folder and lock it; of the processes of one run, the first does."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        return only_writer("out", folder)
    folder.mkdir(parents=True, exist_ok=True)
    return nullcontext()
