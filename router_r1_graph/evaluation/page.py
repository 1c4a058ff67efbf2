"""A page of headings, text, tables and a picture, in Markdown and in HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ..outside import visible

Table = list[list[str]]
"""Rows of cells; the first row is the head."""

Block = tuple[str, "str | Table"]
"""A piece of the report: h1, h2, p, code or img with its text, or a table."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: break-word;
  color: #1c2024; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
td, th { padding: .25rem .35rem; font-size: 13px;
  border-bottom: 1px solid #d8dde3; text-align: right;
  white-space: nowrap }
td:first-child, th:first-child { text-align: left; white-space: normal; min-width: 9rem;
  max-width: 15rem; overflow-wrap: anywhere }
img { max-width: 100% } pre { background: #f5f6f8; padding: .8rem; white-space: pre-wrap }
@media (prefers-color-scheme: dark) {
  body { color: #e6e8ea; background: #16181b } td, th { border-color: #333a41 }
  pre { background: #22262a } img { background: #fff } }
"""


def markdown(blocks: Sequence[Block]) -> str:
    """Return a page in Markdown."""
    parts = []
    for kind, content in blocks:
        if not isinstance(content, str):
            parts.append(table_markdown(content))
        elif kind == "img":
            parts.append("![score against cost](curve.png)")
        elif kind == "code":
            content = visible(content)
            longest = max(map(len, re.findall("`+", content)), default=0)
            fence = "`" * max(4, longest + 1)
            parts.append(f"{fence}text\n{content}\n{fence}")
        else:
            parts.append({"h1": "# ", "h2": "## "}.get(kind, "") + plain_markdown(content))
    return "\n\n".join(parts) + "\n"


_MARKS = re.compile(
    r"[\\`|]"
    r"|\](?=[(\[:])"  # of a link
    r"|[*~](?=\S)|(?<=\S)[*~]|(?<!\w)_|_(?!\w)"  # between spaces, or in a word, they mark nothing
    r"|^[#>]|^[-+=](?=[-+=\s]|$)"
)


def plain_markdown(text: str) -> str:
    r"""Return a text that Markdown shows as it is, on one line: no markup, link or HTML.

    Example:
        >>> print(plain_markdown("<b>*a*</b> [x](y) is 1 * 2 | -0.1 [0.2, 0.3]"))
        &lt;b>\*a\*&lt;/b> [x\](y) is 1 * 2 \| -0.1 [0.2, 0.3]
    """
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(visible(text).split())).replace("<", "&lt;")
    return _MARKS.sub(lambda mark: f"\\{mark[0]}", text)


def table_markdown(table: Table) -> str:
    """Return a table in Markdown."""
    head, *rows = [[plain_markdown(cell) for cell in row] for row in table]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def as_html(blocks: Sequence[Block], title: str) -> str:
    """Return a page that a browser shows; the picture lies beside it."""
    parts = []
    for kind, content in blocks:
        if not isinstance(content, str):
            head, *rows = [[visible(cell) for cell in row] for row in content]
            cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
                for row in rows
            )
            parts.append(f"<table><tr>{cells}</tr>{body}</table>")
        elif kind == "img":
            parts.append('<p><img src="curve.svg" alt="score against cost"></p>')
        elif kind == "code":
            parts.append(f"<pre>{html.escape(visible(content))}</pre>")
        else:
            parts.append(f"<{kind}>{html.escape(visible(content))}</{kind}>")
    title = html.escape(visible(title))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        + "\n".join(parts)
        + "</html>\n"
    )
