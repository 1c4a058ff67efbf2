"""Draws the diagrams of the pages when the site is built, so that a reader's browser loads nothing.

A hook of MkDocs: each fence in Mermaid's language becomes a picture inside the page. The theme
itself would load Mermaid from unpkg.com; mermaidx runs the same Mermaid without a browser.
"""

from __future__ import annotations

import base64
import html
import re
from functools import cache
from typing import Any

FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)


@cache
def picture(source: str) -> str:
    """Return a diagram as an `<img>` that holds its own SVG."""
    import mermaidx

    svg = mermaidx.render(source).svg()
    data = base64.b64encode(svg.encode()).decode()
    words = html.escape(f"Diagram: {', '.join(nodes(source))}")
    # As wide as it was drawn: Mermaid says "100%", which would blow a narrow one up.
    box = re.search(r'viewBox="\S+ \S+ ([\d.]+)', svg)
    width = f' width="{float(box[1]):.0f}"' if box else ""
    return f'<img class="diagram"{width} alt="{words}" src="data:image/svg+xml;base64,{data}">'


def nodes(source: str) -> list[str]:
    """Return what stands in the boxes of a diagram, each once."""
    boxes = re.findall(r"[\[({](?:<p>)?([^\[\](){}<>]+)(?:</p>)?[\])}]", source)
    return list(dict.fromkeys(boxes))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the fences of a page."""
    return FENCE.sub(lambda fence: picture(fence[1]), markdown)
