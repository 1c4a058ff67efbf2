"""Values set in the text of a pool file; every other character of it stays as it was.

A YAML library that writes a file anew loses its comments, or at least its layout. Here PyYAML's
nodes give the place of each value, and only these places change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from datetime import date
from typing import Any

import yaml

from ..errors import PoolError
from .pool_file import parse_yaml

Value = str | float | date | Mapping[str, "Value"]
_Edit = tuple[int, int, str]
"""Start and end of the old text, and the new text."""

_ALIAS = re.compile(r"\s*:\s*(\*[^\s,\]}]+)")
_REST_OF_LINE = re.compile(r"[^\r\n]*")


def edited(text: str, changes: Mapping[int, Mapping[str, Value]]) -> str:
    r"""Return the text of a pool file with some keys of its candidates set.

    Args:
        text: a pool file that can be read.
        changes: the place of a candidate in the file, from 0 -> its keys and their values. A
            mapping is merged into the one that is there.

    Raises:
        PoolError: the candidates share what would change, by YAML's anchors.

    Example:
        >>> print(edited("candidates:\n  - name: Ada  # mine\n", {0: {"latency_seconds": 0.4}}))
        candidates:
          - name: Ada  # mine
            latency_seconds: 0.4
        <BLANKLINE>
    """
    wanted = parse_yaml(text)
    edits: list[_Edit] = []
    nodes = _value(yaml.compose(text, yaml.SafeLoader), "candidates").value
    for place, values in changes.items():
        _merge(wanted["candidates"], place, values)
        edits += _set(text, nodes[place], values, wanted["candidates"][place])
    found = text
    for start, end, new in reversed(sorted(edits, key=lambda edit: edit[:2])):
        found = found[:start] + new + found[end:]
    try:
        same = parse_yaml(found) == wanted
    except yaml.YAMLError:
        same = False
    if not same:
        raise PoolError(
            "its candidates share values by & and *, and one of these would change; give each "
            "candidate its own"
        )
    return found


def _merge(into: Any, key: Any, value: Any) -> None:
    """Set a value in what a file holds; YAML's anchors share parts of it, so they are copied."""
    if isinstance(value, Mapping):
        there = into[key] if isinstance(into, list) else into.get(key)
        into[key] = deepcopy(there) if isinstance(there, dict) else {}
        for name, part in value.items():
            _merge(into[key], name, part)
    else:
        into[key] = value


def _value(node: Any, key: str) -> Any:
    return next(value for name, value in node.value if name.value == key)


def _set(
    text: str, node: yaml.MappingNode, values: Mapping[str, Value], wanted: Mapping[str, Any]
) -> list[_Edit]:
    """Return the edits that set keys of one mapping."""
    edits: list[_Edit] = []
    new: list[str] = []
    there = {name.value: (name, value) for name, value in node.value}
    for key, value in values.items():
        if key not in there:
            new.append(f"{_written(key)}: {_written(wanted[key])}")
            continue
        start, end, alias = _span(text, *there[key])
        old = there[key][1]
        if isinstance(value, Mapping) and isinstance(old, yaml.MappingNode) and not alias:
            edits += _set(text, old, value, wanted[key])
        else:  # what is empty begins right after the colon
            edits.append((start, end, " " * (start == end) + _written(wanted[key])))
    return edits + ([_inserted(text, node, new)] if new else [])


def _span(text: str, name: yaml.Node, value: yaml.Node) -> tuple[int, int, bool]:
    """Return where a value begins and ends, and whether it is an alias, such as `*prices`."""
    after = name.end_mark.index
    if value.start_mark.index >= after:
        return value.start_mark.index, value.end_mark.index, False
    alias = _ALIAS.match(text, after)  # the node itself stands where its anchor is
    assert alias
    return *alias.span(1), True


def _inserted(text: str, node: yaml.MappingNode, new: list[str]) -> _Edit:
    """Return the edit that adds keys to a mapping, after the last one that ends on a line."""
    if not node.value:
        at = text.index("{", node.start_mark.index) + 1
        return at, at, ", ".join(new)
    if node.flow_style:
        _, at, _ = _span(text, *node.value[-1])
        return at, at, "".join(f", {pair}" for pair in new)
    ends = [
        _span(text, name, value)[1]
        for name, value in node.value
        if _on_a_line(value) or value.start_mark.index < name.end_mark.index
    ]
    column = node.value[0][0].start_mark.column
    newline = ("\r\n" if "\r\n" in text else "\n") + " " * column
    if not ends:  # nothing but nested blocks: before the first key
        at = node.value[0][0].start_mark.index
        return at, at, "".join(pair + newline for pair in new)
    rest = _REST_OF_LINE.match(text, ends[-1])  # a comment, or nothing
    assert rest
    return rest.end(), rest.end(), "".join(newline + pair for pair in new)


def _on_a_line(value: yaml.Node) -> bool:
    """Return whether the end of a value is known: it is no block, whose end is the next token."""
    if isinstance(value, yaml.ScalarNode):
        return value.style not in ("|", ">")
    return isinstance(value, yaml.CollectionNode) and bool(value.flow_style)


def _written(value: Any) -> str:
    """Return a value as YAML on one line; it may be put within braces."""
    text = yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    return text.strip()[1:-1]
