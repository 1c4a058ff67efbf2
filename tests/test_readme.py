"""README says what the program does: its picture and its examples are checked."""

import re
from pathlib import Path

import pytest

from extras import needs
from in_process import cli, program
from router_r1_graph import CandidatePool, KeywordController, create_router_r1

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_readme_is_for_the_first_ten_minutes():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_picture_in_readme_is_the_graph():
    graph = create_router_r1(CandidatePool.embedded(), KeywordController()).compile()
    assert graph.get_graph().draw_mermaid().strip() in [b.strip() for b in blocks("mermaid")]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_a_python_example_in_readme_prints_what_it_says(number, tmp_path):
    code = blocks("python")[number]
    expected = re.findall(r"^# -> (.*)$", code, re.M)
    assert expected, "an example says what it prints"
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    run = program(tmp_path / "program.py", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == expected


def test_every_make_target_and_file_that_readme_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_pool_in_readme_is_a_pool(tmp_path):
    (block,) = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(block)
    pool = CandidatePool.from_yaml(tmp_path / "mine.yaml")
    assert [c.name for c in pool.candidates] == ["Small", "Large"]
    assert pool.controller is not None
    assert pool.controller.protocol == "tools"


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/ask.md"])
def test_a_transcript_is_what_the_program_prints(page):
    needs("local")  # the shipped policy
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console\n(\$ router-r1 ask .*?)^```$", text, re.M | re.S)
    question = re.search(r'"(.+)"', block)
    assert question is not None
    run = cli("ask", question[1])
    assert run.returncode == 0, run.stderr

    def timeless(text: str) -> list[str]:
        return re.sub(r"\d+\.\d s", "s", text).splitlines()

    assert timeless(run.stdout) == timeless(block)[1:]
