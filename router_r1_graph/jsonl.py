"""JSON lines from outside, read one at a time: the one place that reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yield the number of each line and its object, or a `ValueError` that says what is wrong.

    Blank lines are skipped, and a byte-order mark is no part of the first one.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                yield number, ValueError(f"not JSON: {error}")
                continue
            if isinstance(value, dict):
                yield number, value
            else:
                yield number, ValueError(f"a line is a JSON object, not {value!r:.80}")
