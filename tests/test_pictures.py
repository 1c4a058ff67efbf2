"""The pictures of README and the pages: all are there, and what can be compared is today's."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from extras import needs

needs("eval")

from docs import layers, pictures
from router_r1_graph import CandidatePool, KeywordController, create_router_r1

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = [
    (page, page.parent / name)
    for page in PAGES
    for name in re.findall(r"!\[[^\]]{10,}\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8"))
]


def words(svg: str) -> str:
    """Return the text of a terminal's picture without times, which differ from run to run."""
    lines = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.S)
    text = html.unescape(re.sub(r"<[^>]+>", "", " ".join(lines))).replace("\xa0", " ")
    return " ".join(re.sub(r"\d+\.\d s", "s", text).split())


def test_every_picture_that_a_page_shows_is_there_and_small():
    assert len({picture for _, picture in SHOWN}) >= 4
    for page, picture in SHOWN:
        assert picture.is_file(), f"{page}: there is no {picture}"
        assert 1000 < picture.stat().st_size < 300_000, picture


def test_every_picture_is_shown_on_a_page():
    assert {p.resolve() for _, p in SHOWN} == set((ROOT / "docs" / "pictures").iterdir())


def test_no_picture_is_still_to_be_made():
    assert [p for p in PAGES if "<!-- picture" in p.read_text(encoding="utf-8")] == []


def test_no_picture_loads_anything_from_elsewhere():
    for picture in pictures.FOLDER.glob("*.svg"):
        text = picture.read_text(encoding="utf-8")
        assert re.findall(r"""(?:url\(|href=|src=)["']?https?:[^"')]*""", text) == [], picture


def test_the_transcript_is_what_ask_prints(tmp_path):
    pictures.transcript(tmp_path)
    drawn = (tmp_path / "transcript.svg").read_text(encoding="utf-8")
    assert "Quillora: William Shakespeare" in words(drawn)
    kept = (pictures.FOLDER / "transcript.svg").read_text(encoding="utf-8")
    assert words(kept) == words(drawn), "run: make pictures"


def test_studios_picture_has_every_node_of_the_router():
    text = (pictures.FOLDER / "studio.svg").read_text(encoding="utf-8")
    graph = create_router_r1(CandidatePool.embedded(), KeywordController()).compile()
    nodes = [name for name in graph.get_graph().nodes if not name.startswith("__")]
    assert [name for name in nodes if f"<p>{name}</p>" not in text] == []


def test_the_picture_of_the_layers_is_the_imports_of_the_code():
    pytest.importorskip("grimp", reason="comes with import-linter (extra 'dev')")
    page = layers.PAGE.read_text(encoding="utf-8")
    assert layers.with_picture(page) == page, "run: python -m docs.layers --write"


def test_arrows_that_follow_from_others_are_left_out():
    rooms = {"cli": {"serving", "evaluation"}, "serving": {"evaluation"}, "evaluation": set()}
    assert layers.arrows(rooms) == [("cli", "serving"), ("serving", "evaluation")]


def test_a_module_without_a_room_is_named():
    with pytest.raises(LookupError, match=r"router_r1_graph\.new is in no room"):
        layers.room_of("router_r1_graph.new")
    assert layers.room_of("router_r1_graph.langsmith.runs") == "langsmith.runs"
    assert layers.room_of("router_r1_graph.langsmith.traces") == "langsmith"
