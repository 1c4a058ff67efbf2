"""One noun has one home: no two things that people read together have one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent


#: LangSmith's own word for the tokens and costs of a run, in its form.
KNOWN = {"Usage"}


def homes() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return where each public class of the library and the training is, and each type alias."""
    classes, aliases = defaultdict(list), defaultdict(list)
    for folder in ("router_r1_graph", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                at = str(path.relative_to(ROOT))
                match node:
                    case ast.ClassDef(name=name) if not name.startswith("_"):
                        classes[name].append(at)
                    case ast.Assign(targets=[ast.Name(id=name)]) if name[0].isupper():
                        aliases[name].append(at)
    return classes, aliases


def test_no_two_classes_have_one_name_nor_a_class_and_a_type():
    classes, aliases = homes()
    every = {name: [*at, *aliases.get(name, [])] for name, at in classes.items()}
    assert {name: at for name, at in every.items() if len(at) > 1 and name not in KNOWN} == {}
