"""Every type of ours that a public signature names is exported, so that users can name it too."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import router_r1_graph

PACKAGE = Path(router_r1_graph.__file__).parent
EXPORTED = {*router_r1_graph._LATER}

#: Type -> the reason why nobody has to name it.
NOT_EXPORTED = {
    "CostSource": "two texts, listed where it is used",
    "Transient": "four texts, listed where it is used",
    "Unit": "three texts, listed where it is used",
    "Option": "built-in types: whatever YAML can hold",
    **dict.fromkeys(("Amount", "AmountOfRun", "Price", "Rate", "Seconds"), "a float with limits"),
    **dict.fromkeys(("Calls", "Count", "CountOfRun", "TokenLimit"), "a whole number with limits"),
    "Excess": "what a candidate keeps of its own calls; nobody passes one",
    "Knob": "the help of a setting, for the command line",
    "Origin": "what `router-r1 evaluate` writes beside its results; nobody passes one",
    "Part": "made by `LearnedController.fit` and `load` alone",
    "Plan": "the oracle's, of the embedded world",
    "World": "the embedded world's facts; the default is the only one that is shipped",
}

CALLED = {"__init__", "__call__", "__getitem__", "__iter__"}
"""Methods that users call by no name."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Nodes = dict[str, tuple[ast.ClassDef | Function, set[str]]]
"""By name: a class or function, and what its module imports from other packages."""


def definitions() -> tuple[Nodes, set[str]]:
    """Return the classes and functions of the package, and the names of its public types."""
    nodes: Nodes = {}
    types = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        foreign = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and not node.level
            for alias in node.names
        }
        for node in tree.body:
            match node:
                case ast.ClassDef(name=name):
                    nodes[name] = node, foreign
                    types.add(name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    nodes.setdefault(name, (node, foreign))
                case ast.Assign(targets=[ast.Name(id=name)]) if not name.isupper():
                    types.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)) if not name.isupper():
                    types.add(name)
    return nodes, {name for name in types if name[0].isupper()}


def named(name: str, nodes: Nodes) -> Iterator[str]:
    """Yield the names in the annotations of a function, or of a class and its bases in public."""
    node, foreign = nodes[name]
    if isinstance(node, Function):
        found: list[ast.AST | None] = [node]
    else:
        found = [part for part in node.body if isinstance(part, Function | ast.AnnAssign)]
    for annotation in (one for part in found for one in annotations(part, node)):
        for inner in ast.walk(annotation):
            if isinstance(inner, ast.Name) and inner.id not in foreign:
                yield inner.id
            elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner.value  # a name in quotes
    if isinstance(node, ast.ClassDef):
        bases = {one.id for base in node.bases for one in ast.walk(base) if hasattr(one, "id")}
        for base in (bases - foreign) & {*nodes}:
            yield from named(base, nodes)


def annotations(part: ast.AST | None, within: ast.AST) -> Iterator[ast.expr]:
    """Yield the annotations of a function, of a public method, or of a public field."""
    match part:
        case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
            yield part.annotation
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            if part is within or not name.startswith("_") or name in CALLED:
                given = part.args
                every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
                every += [one for one in (given.vararg, given.kwarg) if one]
                yield from (one.annotation for one in every if one.annotation)
                if part.returns:
                    yield part.returns


def not_exported() -> dict[str, list[str]]:
    """Return the types in public signatures that are not exported, each with who names it."""
    nodes, types = definitions()
    found = defaultdict(list)
    for exported in sorted(EXPORTED & {*nodes}):
        for name in (types - EXPORTED).intersection(named(exported, nodes)):
            found[name].append(exported)
    return dict(found)


def test_every_type_in_a_public_signature_is_exported():
    found = not_exported()
    assert {name: by for name, by in found.items() if name not in NOT_EXPORTED} == {}
    assert set(NOT_EXPORTED) <= set(found), "an exception that is none any more"


def test_the_types_in_a_signature_are_found():
    nodes, types = definitions()
    assert {"Knobs", "Decides", "ChatModel", "RouterState"} <= {*named("create_router_r1", nodes)}
    assert "EvaluationQuestion" in {*named("Evaluation", nodes)}
    assert "Path" not in {*named("read_traces", nodes)}  # pathlib's, not that of the simulation
    assert "Path" in types
