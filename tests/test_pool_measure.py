"""`router-r1 pool measure`: candidates are asked probes, and the pool file says what came of it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from in_process import Done, cli
from openai_server import Malformed, OpenAIServer, Reply, Request, Status
from router_r1_graph import CandidatePool, PoolError
from router_r1_graph.answers import contains
from router_r1_graph.candidates.pool_edit import edited
from router_r1_graph.candidates.pool_file import parse_yaml
from router_r1_graph.evaluation.probes import SHIPPED_PROBES, in_turn, read_probes
from yaml_pool import ONE_DOLLAR, yaml_pool

KEY = "sk-test-0123456789abcdef"
GOLD = {probe.question: probe for probe in read_probes(SHIPPED_PROBES)}

POOL = """\
# My own LLMs.
name: mine
candidates:
  - name: Ada            # at home
    api_key_env: ADA_KEY
    base_url: URL
    max_retries: 0
    latency_seconds:     # not known
    benchmarks:
      mmlu: 0.7          # from its card
      code: 0.01

  - {name: Bob, base_url: URL, max_retries: 0, input_usd_per_mtok: 1, output_usd_per_mtok: 2}  # two
  - name: "Cleo"
    base_url: URL
    max_retries: 0
    strengths:
      - law
# the end
"""


def pool_file(folder: Path, server: OpenAIServer) -> Path:
    file = folder / "mine.yaml"
    file.write_text(POOL.replace("URL", server.base_url), encoding="utf-8")
    return file


def measure(file: Path, *options: object) -> Done:
    return cli("pool", "measure", file, *options, env={"ADA_KEY": KEY}, cwd=file.parent)


def knows(*domains: str, **more: object):
    """Answer the shipped probes of these domains, and shrug at the others."""

    def answer(request: Request) -> Reply:
        probe = GOLD[request.prompt]
        known = probe.domain in domains
        text = f"I think it is **{probe.gold[0]}**." if known else "Something else."
        size = len(request.prompt)
        return Reply(text, size, len(text), cost=(0.5 * size + 1.5 * len(text)) / 1e6, **more)

    return answer


def by_model(**answers):
    return lambda request: answers[request.model](request)


# ------------------------------------------------------------------------------------- the file

WHERE = [
    "candidates:\n  - name: Ada  # mine\n",
    "candidates: [{name: Ada, benchmarks: {}}, {name: Bob}]",
    "candidates: [{name: Ada, benchmarks: {code: 1,},}, {name: Bob}]",
    '{"candidates": [{"name": "Ada", "latency_seconds": 3}]}',
    "candidates:\n  - {name: Ada, # x\n     model: y # z\n    }\n",
    "candidates:\n  -\n    name: |-\n      Ada\n    options:\n      x: 1\n\n# end\n",
    "candidates:\n  - name: >-\n      Ada\n\n    # c\n    latency_seconds: ~\n    strengths:\n"
    "      - a\n    # tail\ncontroller: {model: x}\n",
    'candidates:\n  - name: "Ada\n      Two"   # c\n    strengths: [a,\n      b]  # d',
    "candidates:\n- name: Ada\n  latency_seconds:",
    "candidates:\n- name: Bob\n- &b\n  name: Ada\n  latency_seconds: 1 # s\n",
    "s: &s {code: 0.1, mmlu: 0.2}\ncandidates:\n  - name: Ada\n    benchmarks: *s\n"
    "  - {name: Bob, benchmarks: *s}\n",
    "s: &s {benchmarks: {mmlu: 0.2}}\ncandidates:\n  - <<: *s\n    name: Ada\n",
    "\ufeff# é 🎉\r\ncandidates:\r\n- name: Ada  # 🎉\r\n  latency_seconds:   # fill in\r\n"
    "  benchmarks:\r\n    # card\r\n    code: 0.1 # c\r\n  # after\r\n",
]


@pytest.mark.parametrize("text", WHERE)
def test_a_value_is_set_wherever_it_stands_and_all_else_stays(text):
    scores = {"code": 0.9, "film and music": 1.0, "yes": 0.5}
    values = {"latency_seconds": 0.4, "benchmarks": scores, "measured": {"source": "a: b, c"}}
    place = [c["name"][:3] for c in parse_yaml(text)["candidates"]].index("Ada")
    new = edited(text, {place: values})
    before, after = parse_yaml(text), parse_yaml(new)
    had, has = before["candidates"].pop(place), after["candidates"].pop(place)
    assert after == before
    assert has == {**had, **values, "benchmarks": {**(had.get("benchmarks") or {}), **scores}}
    # Deleted are at most the old numbers and aliases.
    lost = Counter(text) - Counter(new)
    assert set(lost) <= set("0123456789.~*s")
    assert new.count("#") == text.count("#")
    assert new.count("\r\n") == new.count("\n") or "\r" not in text
    again = {**values, "latency_seconds": 0.5, "measured": {"source": "d, e: f"}}
    assert edited(edited(new, {place: again}), {place: values}) == new


@pytest.mark.parametrize(
    "text",
    [
        "candidates:\n- name: Ada\n  benchmarks: &s {mmlu: 0.1}\n- {name: Bob, benchmarks: *s}\n",
        "candidates:\n- &a\n  name: Ada\n- {<<: *a, name: Bob}\n",
    ],
)
def test_what_another_candidate_shares_is_not_changed(text):
    with pytest.raises(PoolError, match=r"share values by & and \*"):
        edited(text, {0: {"benchmarks": {"code": 0.9}}})


# ----------------------------------------------------------------------------------- the probes


def test_the_shipped_probes_can_be_scored():
    probes = list(GOLD.values())
    assert len(probes) == 100
    assert set(Counter(p.domain for p in probes).values()) == {10}
    assert [p.question for p in probes if contains(p.question, p.gold)] == []
    assert all(contains(f"Well, it is {gold}.", [gold]) for p in probes for gold in p.gold)
    assert {p.domain for p in probes[:10]} == {p.domain for p in in_turn(probes)[-10:]}


@pytest.mark.long
def test_measured_skills_of_simulated_candidates_are_the_true_ones(tmp_path):
    done = cli("pool", "measure", "embedded", "--out", tmp_path / "mine.yaml")
    assert done.returncode == 0, done.stderr
    pool, true = CandidatePool.from_yaml(tmp_path / "mine.yaml"), CandidatePool.embedded()
    for candidate, real in zip(pool.candidates, true.candidates, strict=True):
        for domain, score in candidate.benchmarks.items():
            skill = real.benchmarks.get(domain, real.options.get("elsewhere", 0.03))
            # Four standard errors of 20 probes; a guess may be right, too.
            assert abs(score - skill) < 4 * (skill * (1 - skill) / 20) ** 0.5 + 0.05
        assert set(candidate.benchmarks) > {"literature", "film", "science"}
        assert candidate.latency_seconds == real.latency_seconds  # a simulation's time is none
        assert "140 of 140 facts of its world" in candidate.measured.source
    text = (tmp_path / "mine.yaml").read_text()
    assert "# Specialists: cheap, narrow, one hop" in text


# ------------------------------------------------------------------------------------ endpoints


def test_a_pool_is_measured_and_a_failing_candidate_holds_nobody_up(serve, tmp_path):
    echo = Status(401, "no such key", echo_authorization=True)
    free = knows("language")
    server = serve(
        by_model(
            Ada=knows("code", "history"),
            Bob=lambda request: echo,
            Cleo=lambda r: Reply(free(r).text),
        )
    )
    file = pool_file(tmp_path, server)
    old = file.read_text()
    done = measure(file, "--replies", tmp_path / "replies.sqlite")
    assert done.returncode == 0, done.stderr
    assert (server.count("Ada"), server.count("Cleo")) == (100, 100)
    assert server.count("Bob") <= 5 + 1  # given up, with one more in flight
    assert "given up: auth: " in done.stdout
    assert "no price of Cleo is listed" in done.stderr
    assert "history 10 1.00 [0.72, 1.00]" in " ".join(done.stdout.split())

    ada, bob, cleo = CandidatePool.from_yaml(file).candidates
    scores = {probe.domain: 0.0 for probe in GOLD.values()}
    assert ada.benchmarks == {"mmlu": 0.7, **scores, "code": 1.0, "history": 1.0}
    assert cleo.benchmarks == {**scores, "language": 1.0}
    assert (ada.input_usd_per_mtok, ada.output_usd_per_mtok) == (0.5, 1.5)  # as it was billed
    assert ada.prices_checked == ada.measured.date
    assert not cleo.priced
    assert "about" in cleo.describe()
    assert "code 1" in ada.describe()
    assert "history 1" in ada.describe_tool()
    assert (bob.benchmarks, bob.measured) == ({}, None)

    new = file.read_text()
    kept = [line for line in old.splitlines() if line not in new.splitlines()]
    assert [line.split()[0] for line in kept] == ["latency_seconds:", "code:"]
    assert all(f"+{line}" in done.stdout for line in new.splitlines() if line not in old)
    assert KEY not in new + done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".sqlite", "")] == [
        "mine.yaml"
    ]

    asked = server.count()
    again = measure(file, "--replies", tmp_path / "replies.sqlite", "--candidate", "ada")
    assert (again.returncode, server.count()) == (0, asked)
    assert "paid: $0\n" in again.stderr
    assert file.read_text() == new


def test_the_limit_in_usd_ends_it(serve, tmp_path):
    def answer(request: Request) -> Reply:
        return Reply("Paris", cost=0.001 if request.model == "Ada" else 0.0)

    server = serve(answer)
    file = pool_file(tmp_path, server)
    done = measure(file, "--budget-usd", 0.0301, "--concurrency", 3, "--out", "new.yaml")
    assert done.returncode == 0
    assert "will end it" in done.stderr
    assert server.count("Ada") == 30
    assert server.count("Bob") == server.count("Cleo") == 100  # what costs nothing goes on
    assert "allows no more calls; asked: Ada 30 of 100" in done.stderr
    assert "paid: $0.030000" in done.stderr
    ada = CandidatePool.from_yaml(tmp_path / "new.yaml").candidates[0]
    assert "30 of 100 shipped probes" in ada.measured.source
    assert "measured" not in file.read_text()
    assert " geography 3 " in " ".join(done.stdout.split())  # all domains have as many


def test_what_may_be_billed_is_told_beside_what_was_paid(serve, tmp_path):
    yaml_pool(tmp_path, serve(Malformed()), **ONE_DOLLAR)
    done = measure(tmp_path / "pool.yaml")
    assert re.search(r"paid: \$0, and up to \$0\.\d+ that no provider confirmed", done.stderr)


def test_an_interrupt_writes_what_is_known_and_a_second_run_goes_on(serve, tmp_path):
    def answer(request: Request) -> Reply:
        if server.count() == 40:
            os.kill(os.getpid(), signal.SIGINT)
        return Reply("Paris")

    server = serve(answer)
    file = pool_file(tmp_path, server)
    options = ("--candidate", "Cleo", "--replies", tmp_path / "replies.sqlite")
    done = measure(file, *options)
    assert done.returncode == 130
    assert "stopped; go on with --replies" in done.stderr
    source = CandidatePool.from_yaml(file).candidates[2].measured.source
    known = int(source.split()[3])
    assert 37 <= known <= 40
    assert measure(file, *options).returncode == 0
    assert 100 <= server.count() <= 103  # those in flight are asked again
    assert "100 of 100" in CandidatePool.from_yaml(file).candidates[2].measured.source


def test_own_questions_score_their_own_domains(serve, tmp_path):
    rows = [
        {"question": f"{n}?", "answer": str(n), "domain": "even" if n % 2 == 0 else "odd"}
        for n in range(8)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = serve(lambda r: Reply(r.prompt.strip("?") if int(r.prompt[0]) % 2 else "7"))
    file = pool_file(tmp_path, server)
    done = measure(file, "--probes", "own.jsonl", "--metric", "number", "--candidate", "Bob")
    assert done.returncode == 0, done.stderr
    (bob,) = (c for c in CandidatePool.from_yaml(file).candidates if c.name == "Bob")
    assert bob.benchmarks == {"even": 0.0, "odd": 1.0}
    assert (bob.input_usd_per_mtok, bob.prices_checked) == (1.0, None)  # nobody reported a price
    assert bob.measured.source.endswith("8 of 8 probes of own.jsonl by number")


def test_a_dry_run_asks_nobody(serve, tmp_path):
    server = serve(Reply("Paris"))
    file = pool_file(tmp_path, server)
    before = file.read_text()
    done = measure(file, "--dry-run")
    assert (done.returncode, server.count(), file.read_text()) == (0, 0, before)
    bob = next(line.split() for line in done.stdout.splitlines() if line.startswith("Bob"))
    assert bob[1] == "100"
    assert 0.02 < float(bob[2].strip("$")) < float(bob[3].strip("$")) < 0.2


def refusals(folder: Path) -> dict[str, tuple[tuple[object, ...], str]]:
    (folder / "elsewhere").mkdir()
    (folder / "records.jsonl").write_text(
        json.dumps({"question": "?", "candidate": "Ada", "reply": "x"})
    )
    (folder / "old.yaml").write_text(
        "candidates: [{name: Ada, provider: recorded, options: {records: records.jsonl}}]"
    )
    (folder / "shared.yaml").write_text(
        "candidates:\n- {name: Ada, latency_seconds: &s 1}\n- {name: Bob, latency_seconds: *s}\n"
    )
    many = [json.dumps({"question": f"{n}?", "gold": "x", "domain": f"d{n}"}) for n in range(41)]
    (folder / "many.jsonl").write_text("\n".join(many))
    return {
        "shipped": (("router_r1",), "router_r1 comes with the package, and is not changed: name"),
        "stranger": (("mine.yaml", "--candidate", "Adda"), "no candidate 'Adda' (did you mean"),
        "metric": (("mine.yaml", "--metric", "bleu"), "--metric: unknown metric 'bleu'"),
        "probes": (("mine.yaml", "--probes", "none.jsonl"), "none.jsonl: no such file"),
        "domains": (("mine.yaml", "--probes", "many.jsonl"), "41 domains, and a descriptor has"),
        "key": (("mine.yaml",), "Ada: the environment variable ADA_KEY is not set"),
        "folder": (("mine.yaml", "--out", "no/x.yaml"), "--out no/x.yaml: cannot be written"),
        "files": (
            ("old.yaml", "--out", "elsewhere/new.yaml"),
            "old.yaml names files beside it, so write it in that folder",
        ),
        "anchors": (("shared.yaml", "--candidate", "Ada"), "share values by & and *"),
    }


@pytest.mark.parametrize(
    "case",
    ["shipped", "stranger", "metric", "probes", "domains", "key", "folder", "files", "anchors"],
)
def test_what_is_wrong_is_said_before_anything_is_paid(serve, tmp_path, case):
    server = serve(Reply("Paris"))
    pool_file(tmp_path, server)
    args, says = refusals(tmp_path)[case]
    env = {"OPENAI_API_KEY": KEY}
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = cli("pool", "measure", *args, env=env, cwd=tmp_path)
    assert (done.returncode, done.stdout, server.count()) == (2, "", 0)
    assert says in done.stderr
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
