"""`router-r1 train`: a policy learned by reinforcement; the program is in `training/`."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import ConfigError, MissingExtraError

EXAMPLES = """[bold]Examples[/bold]

router-r1 train init --pool mine.yaml --questions mine.jsonl

router-r1 train train.yaml budget_usd=20

router-r1 train smoke out=runs/smoke

router-r1 train report runs/smoke
"""

REPORT_EXAMPLES = "[bold]Example[/bold]\n\nrouter-r1 train report runs/smoke"
INIT_EXAMPLES = """[bold]Example[/bold]

router-r1 train init --pool mine.yaml --questions mine.jsonl \\
  --model Qwen/Qwen3-0.6B --budget-usd 20
"""

_NEEDED = ("torch", "transformers", "trl", "datasets", "accelerate", "peft")


class ConfigOrCommand(TyperGroup):
    """A group whose first argument may be a config instead of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `train FILE ...` as `train run FILE ...`."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


def run(
    config: Annotated[Path, typer.Argument(help="A config file, or a shipped one: smoke, demo.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the config.")
    ] = None,
) -> None:
    """Train a policy; the same command goes on from the last checkpoint."""
    _require_extra()
    sys.exit(training("program").main(["--config", str(config), *(overrides or [])]))


def init(
    pool: Annotated[str, typer.Option(help="A pool file, or the name of a shipped pool.")],
    questions: Annotated[Path, typer.Option(help="JSON lines with question and golden_answers.")],
    model: Annotated[
        str, typer.Option(help="The model to train: a folder, or a name on the hub.")
    ] = "Qwen/Qwen3-0.6B",
    budget_usd: Annotated[float, typer.Option(help="The most that the run pays.", min=0)] = 10.0,
    out: Annotated[Path, typer.Option(help="The config to write.")] = Path("train.yaml"),
) -> None:
    """Write a commented config for a pool and a file of questions."""
    print(
        training("init").write_config(
            out, pool=pool, questions=questions, model=model, budget_usd=budget_usd
        )
    )


def report(
    out: Annotated[Path, typer.Argument(help="The folder of a run, such as runs/smoke.")],
) -> None:
    """Write the report of a run again, with its curves; the run need not be finished."""
    _require_extra()
    print(training("report").write_report(out))


def _require_extra() -> None:
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise MissingExtraError(f"router-r1 train ({', '.join(missing)})", "train")


def training(module: str) -> ModuleType:
    """Import a module of the programs: of the checkout that this is in, or of the package.

    Raises:
        ConfigError: there is neither.
    """
    here = Path(__file__).resolve().parents[2]
    found = find_spec("training")  # of a checkout, and not a folder of the user's that is called so
    if found and found.origin and Path(found.origin).parent == here / "training":
        return import_module(f"training.{module}")
    if find_spec("router_r1_training"):  # how the package calls it
        return import_module(f"router_r1_training.{module}")
    raise ConfigError(
        f"the programs of training are not installed, nor in {here}; install router-r1-graph again"
    )
