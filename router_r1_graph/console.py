"""The terminal: output is written in lines, without characters that could control it."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console
from rich.text import Text

from .outside import visible


def make_console(*, stderr: bool = False) -> Console:
    """Return the console of standard output: live in a terminal, unless NO_COLOR is set.

    Args:
        stderr: of standard error instead.
    """
    plain = bool(os.environ.get("NO_COLOR"))
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,  # names and replies may have brackets
        color_system=None if plain else "auto",
        force_interactive=None if stream.isatty() and not plain else False,
    )


class _Plain(logging.Formatter):
    """Removes characters that could control a terminal from logs, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def plain_logs() -> None:
    """Log on standard error, without such characters, if no other handler is set up."""
    if logging.lastResort:
        logging.lastResort.setFormatter(_Plain())


def print_line(console: Console, label: tuple[str, str], *parts: tuple[str, str]) -> None:
    """Print parts of a line, each with its style, beside a label; a long line is wrapped.

    Args:
        console: where to.
        label: as wide as those of the other lines.
        *parts: texts and their styles; characters that could control a terminal are removed.
    """
    text = Text()
    for words, style in parts:
        text.append(visible(words), style=style)
    indent = len(label[0])
    # In a terminal, lines break between words; a pipe has no width to keep to.
    width = console.width - indent if console.is_terminal else 1_000_000
    for number, line in enumerate(text.wrap(console, max(20, width))):
        line.rstrip()
        # Assembled: a style of the whole text would colour what is added, too.
        head = Text(" " * indent) if number else Text.assemble(label)
        console.print(head + line, soft_wrap=True, highlight=False)


def print_note(text: str) -> None:
    """Print a note or a warning on standard error; in a terminal, it breaks between words."""
    print_line(make_console(stderr=True), ("", ""), (text, ""))
