"""The folder of the traces of a policy, and which of them are of the same policy and question."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from router_r1_graph import ConfigError, Trace, TraceError
from router_r1_graph.controllers.policy.folder import PolicyFolder
from router_r1_graph.files import write_whole
from training.items import Item

from .policy_questions import ROOT


def is_of(trace: Trace, item: Item) -> bool:
    """Return whether a kept trace is of this item, not of another one with the same id."""
    ours = (item.question, item.gold, item.context)
    same = (trace.question, trace.gold, trace.context) == ours
    return same and trace.pool == item.pool.descriptors()


def read_kept(file: Path) -> Iterator[Trace]:
    """Yield the traces of a file; a line that was cut off by the end of a program is dropped.

    Raises:
        TraceError: another line is no trace.
    """
    if not file.is_file():
        return
    whole = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                yield Trace.model_validate_json(line)
            except ValueError as error:
                why = str(error).splitlines()[0]
                raise TraceError(
                    f"{file}, line {number}: not a trace ({why}); delete the line, and its "
                    "question is asked again"
                ) from None
            whole += len(line)
    os.truncate(file, whole)


def register(out: Path, policies: Mapping[str, str]) -> list[str]:
    """Check that a folder is of these policies, and return the commits that wrote into it.

    Raises:
        ConfigError: it is of others.
    """
    file = out / "about.json"
    about = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    prints = {who: _fingerprint(path) for who, path in policies.items()}
    for who, before in about.get("policies", {}).items():
        if prints.get(who, before) != before:
            raise ConfigError(
                f"{out}: holds the traces of another {who} than {policies[who]!r}; name another "
                "folder with --out, or delete this one"
            )
    commits = [*about.get("commits", []), commit()]
    about = {
        "policies": {**about.get("policies", {}), **prints},
        "commits": list(dict.fromkeys(commits)),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(about, indent=1) + "\n")
    return list(about["commits"])


def _fingerprint(path: str) -> str:
    """Return what changes with the weights, the settings or the template of a policy."""
    policy = PolicyFolder(path)
    policy.check()
    if policy.on_hub or policy.in_package:
        return path
    digest = hashlib.sha256()
    for file in sorted(policy.folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".txt"):
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def commit() -> str:
    """Return the commit of the checkout, "+" behind it where files have changed since."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return run.stdout.strip() or "unknown"
