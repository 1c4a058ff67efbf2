"""Writes the configuration reference: a table for each thing that can be configured.

    python -m docs.reference            prints the page
    python -m docs.reference --write    writes it: docs/configuration.md

Its content comes from the classes themselves: fields, types, defaults, docstrings. A test compares
the written page with them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

sys.path.insert(0, str(Path(__file__).parent.parent))  # training is no part of the package

from router_r1_graph import Candidate, CandidatePool, ControllerSettings, RouterContext
from router_r1_graph.candidates.replay import RecordedOptions
from router_r1_graph.simulation.mind import SimulatedOptions
from training.config import RunConfig

PAGE = Path(__file__).with_name("configuration.md")
TECHNICAL = 1e9
"""Limits from here on keep numbers computable, and tell a reader nothing."""
TYPES = {
    "Candidate": "[candidates](#candidate)",
    "ControllerSettings": "[a controller block](#controller)",
    "PoolResilience": "[resilience settings](how-to/resilience.md)",
    "Measurement": "`date`, `source`",
    "RewardFunction": "[reward functions](how-to/train.md#your-own-reward)",
}
"""Sections by the titles of their classes, as a reader knows them."""

HEAD = """# Configuration

The tables below list every setting with its type and default. They are written from the code. Keys
are never in a file: `api_key_env` names the environment variable that holds the key.
"""
ENVIRONMENT = """## Environment {#environment}

| variable | meaning |
|---|---|
| `OPENAI_API_KEY` | the key where `provider` is `openai` and there is no `base_url` |
| the one that `api_key_env` names | the key for this candidate or controller |
| `ROUTER_R1_POOL` | the pool of the graphs in `langgraph.json`: a file or a shipped pool |
| `ROUTER_R1_CONTROLLER` | the controller of these graphs: a spec |
| `ROUTER_R1_REPLIES` | the file of `--replies`, for `ask`, `evaluate` and `serve` |
| `LANGSMITH_TRACING`, `LANGSMITH_API_KEY`, `LANGSMITH_PROJECT` | read by LangSmith's own client |
"""


def page() -> str:
    """Return the page as Markdown."""
    sections = [
        section(
            "A run", "run", RouterContext, "Passed as `context=`, or as an option of a command."
        ),
        section(
            "A pool file", "pool", CandidatePool, "A YAML file; `router-r1 pool check` reads it."
        ),
        section("A candidate", "candidate", Candidate, "An entry of `candidates:` in a pool file."),
        section(
            "The controller block",
            "controller",
            ControllerSettings,
            "The block `controller:` of a pool file.",
        ),
        section(
            "Recorded candidates",
            "recorded",
            RecordedOptions,
            "The `options:` of a candidate with `provider: recorded`.",
        ),
        section(
            "Simulated candidates",
            "simulated",
            SimulatedOptions,
            "The `options:` of a candidate with `provider: simulated`.",
        ),
        section(
            "Training",
            "training",
            RunConfig,
            "A YAML file; `key=value` after the command replaces a setting.",
        ),
    ]
    return "\n".join([HEAD, *sections, ENVIRONMENT])


def section(title: str, anchor: str, kind: type[Any], where: str) -> str:
    """Return the table of one class."""
    schema = TypeAdapter(kind).json_schema(mode="validation")
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for cells in table(schema, schema.get("$defs", {}), said(kind)):
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return f"## {title} {{#{anchor}}}\n\n{where}\n\n" + "\n".join(rows) + "\n"


def table(
    schema: dict[str, Any], known: dict[str, Any], docs: dict[str, str], prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """Yield setting, type, default and docstring; the settings of a section go with its name."""
    for name, field in schema.get("properties", {}).items():
        inner = known.get(field.get("$ref", "").rpartition("/")[2])
        if inner is not None and "properties" in inner and "default" in field:
            yield from table(inner, known, docs, f"{prefix}{name}.")
            continue
        required = name in schema.get("required", ())
        value = field.get("default", {"object": {}, "array": []}.get(field.get("type")))
        default = "required" if required else "none" if value is None else f"`{value!r}`"
        text = field.get("description") or docs.get(f"{schema.get('title')}.{name}", "")
        yield f"`{prefix}{name}`", type_of(field, known), default, text


def type_of(schema: dict[str, Any], known: dict[str, Any]) -> str:
    """Return a type in words, with its limits."""
    if ref := schema.get("$ref"):
        return type_of(known[ref.rpartition("/")[2]], known)
    if options := schema.get("anyOf"):
        names = [type_of(option, known) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(names))
    if options := schema.get("enum"):
        return ", ".join(f"`{option}`" for option in options)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "properties" in schema:
        return TYPES.get(schema["title"], "mapping")
    name = {
        "integer": "whole number",
        "number": "number",
        "string": {"date": "date", "path": "path"}.get(schema.get("format", ""), "text"),
        "boolean": "yes or no",
        "array": "list",
        "object": "mapping",
    }.get(schema.get("type", ""), "anything")
    if name == "list" and (inner := schema.get("items")):
        name = f"list of {type_of(inner, known)}"
    limits = [
        f"{sign} {schema[key]:,}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in schema and abs(schema[key]) < TECHNICAL
    ]
    return " ".join([name, ", ".join(limits)]).strip()


def said(kind: type[Any]) -> dict[str, str]:
    """Return "Class.field" -> docstring, for a class, its bases and the sections in it."""
    found: dict[str, str] = {}
    fields = getattr(kind, "model_fields", {})
    for field in fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= said(field.annotation)
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] in ("router_r1_graph", "training"):
            texts = below_fields(base) | in_attributes(base)
            found |= {f"{kind.__name__}.{name}": text for name, text in texts.items()}
    return found


def below_fields(kind: type[Any]) -> dict[str, str]:
    """Return the docstrings that stand below the fields of a class."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def in_attributes(kind: type[Any]) -> dict[str, str]:
    """Return the section "Attributes:" of a class's docstring: attribute -> text."""
    _, _, text = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    block = re.split(r"\n\S", text)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", block, re.M)
    return {name: " ".join(words.split()) for name, words in entries}


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/configuration.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
