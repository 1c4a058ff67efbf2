"""The small files of a run: a kill or a full disk never leaves half of one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from router_r1_graph import files

logger = logging.getLogger(__name__)


def replace_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Have a file written under another name, and give it its own once it is whole.

    Args:
        file: the file; its folder is there.
        write: writes the file that it is given.

    Raises:
        OSError: it cannot be written.
    """
    part = file.with_name(f"{file.name}.part")
    write(part)
    part.replace(file)


def read_whole(file: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or broken, which is logged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is broken (%s), it is passed over", file, error)
        return None


def append_line(file: Path, data: Mapping[str, Any]) -> None:
    """Append a JSON line; see `router_r1_graph.files.append_line`.

    Numbers that JSON does not know, such as NumPy's, are written as floats.

    Raises:
        OSError: it cannot be written.
    """
    files.append_line(file, json.dumps(data, default=float))


def whole_lines(file: Path, of: int, each: int) -> int:
    """Cut off everything that a kill has left after the last whole batch of lines; return the rest.

    Args:
        file: a file of lines, which need not be there.
        of: how many lines it is to have; if it has them all, nothing but a torn line is cut off.
        each: the lines of a batch, which is written at once.
    """
    if not file.exists():
        return 0
    ends = [0]
    with file.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                ends.append(ends[-1] + len(line))
    count = len(ends) - 1
    kept = count if count >= of else count - count % each
    with file.open("rb+") as lines:
        lines.truncate(ends[kept])
    return kept
