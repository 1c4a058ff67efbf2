"""The options of a reply store, which several commands take."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .options import about, flag, shown_as


def _option(name: str, kind: Any, default: Any, help: str, **more: Any) -> Any:
    option = typer.Option(
        flag(name), help=help, rich_help_panel="Replies that are paid once", **more
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=Annotated[kind, option])


_OPTIONS = [
    _option(
        "replies",
        Path | None,
        None,
        "The file in which replies are kept, so that the same call is paid once, whichever command "
        "makes it. The environment variable ROUTER_R1_REPLIES names it, too.",
        envvar="ROUTER_R1_REPLIES",
        show_envvar=False,
    ),
    _option(
        "replies_every",
        bool,
        False,
        "Also keep sampled replies, and those of tools, retrievers and graphs.",
    ),
    _option(
        "replies_max_age", str | None, None, "Ask again if a reply is older: 90s, 30m, 12h, 7d."
    ),
    _option(
        "replies_max_mb",
        int,
        1024,
        "From this size on, the replies are deleted that were not used for the longest time.",
        metavar="N",
        min=1,
    ),
]


def takes_replies(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a reply store, in place of its parameter `replies`."""

    def run(
        *,
        replies: Path | None,
        replies_every: bool,
        replies_max_age: str | None,
        replies_max_mb: int,
        **given: Any,
    ) -> None:
        if replies is None:
            command(**given, replies=None)
            return
        from ..candidates.store import ReplyStore

        age = replies_max_age and seconds("--replies-max-age", replies_max_age)
        with about("--replies"):
            store = ReplyStore(
                replies,
                every=replies_every,
                max_age_seconds=age or None,
                max_bytes=replies_max_mb * 1_000_000,
            )
        with store:
            command(**given, replies=store)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == "replies":
            parameters += _OPTIONS
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return shown_as(command, run, parameters)


def seconds(option: str, text: str) -> float:
    """Read a time span: a number and s, m, h or d.

    Raises:
        ConfigError: it is none.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match or not float(match[1]):
        raise ConfigError(f"{option} {text!r}: a number and s, m, h or d, such as 7d")
    return float(match[1]) * units[match[2]]
