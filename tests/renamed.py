"""Attributes of other packages that a new version of them would have under another name."""

from __future__ import annotations

import sys
from typing import Any

import pytest


def rename(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[str]:
    """Have a class keep an attribute out of sight of our code, and only of ours.

    The package itself goes on to use it, as it would under the new name.

    Returns:
        A list that gets the name each time that our code looks for it in vain.
    """
    plain, missed = owner.__getattribute__, []

    def get(self: Any, wanted: str) -> Any:
        asker = sys._getframe(1).f_globals.get("__name__", "")
        if wanted == name and asker.startswith(("router_r1_graph.", "training.")):
            missed.append(name)
            raise AttributeError(f"{owner.__name__} has no {name}")
        return plain(self, wanted)

    monkeypatch.setattr(owner, "__getattribute__", get)
    return missed
