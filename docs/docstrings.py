"""Lets the API page show the examples of docstrings.

An extension of Griffe. The docstrings say "Example:"; the parser makes a box of text of that, in
which `>>>` becomes a quotation and tags disappear. The section that it shows as a program is called
"Examples:".
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class ShownExamples(Extension):
    """Renames the section before it is parsed; the source stays as it is."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename it in the docstring of one module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^( *)Example:$", r"\1Examples:", obj.docstring.value)
