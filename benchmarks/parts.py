"""How long small parts take that are done often, or with much.

    python -m benchmarks.parts                 all of them
    python -m benchmarks.parts question reply  these

    question   reading a question of the embedded world, in its own words and in anybody's
    reply      computing the reply of a simulated candidate
    records    finding one of 20,000 recorded questions by its words
    matrix     a matrix of 200 questions x 1,000 candidates, written to each kind of file and read

The bars are for one quiet core. Machines differ: `json` beside a figure is how many times
`json.loads` of a 1 kB record would fit into it, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from router_r1_graph import CandidatePool
from router_r1_graph.candidates import Candidate
from router_r1_graph.candidates.records import CandidateRecords, Record
from router_r1_graph.controllers.learned.matrix import ScoreMatrix, read_matrix
from router_r1_graph.simulation import Ask, World, generate, read_question, reply_text_and_tokens

ENGLISH = Path(__file__).parents[1] / "tests/data/english.yaml"
RECORD = json.dumps({"question": "What is it?", "reply": "word " * 180, "tokens": [1, 2, 3]})


def seconds(part: Callable[[], object], repeats: int) -> float:
    """Return the median of how long a part took."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        part()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def show(what: str, taken: float, bar: float, unit: str = "ms") -> None:
    """Print a figure beside its bar, and beside what the machine does otherwise."""
    each = seconds(lambda: [json.loads(RECORD) for _ in range(1000)], 9) / 1000
    scale = {"ms": 1e3, "s": 1.0}[unit]
    print(
        f"{what}: {taken * scale:.3g} {unit} (bar: under {bar * scale:g} {unit}), "
        f"{taken / each:,.1f} x json"
    )


def free_wordings() -> list[str]:
    """Return questions in free wordings, of one hop and of two; a name in four is misspelled."""
    wordings = yaml.safe_load(ENGLISH.read_text(encoding="utf-8"))["wordings"]
    rng = random.Random(1)
    texts = []
    for asked in generate(World.embedded(), split="all", n=1000, seed=3, hops=[1, 2]):
        if not isinstance(asked.structure, Ask):
            continue
        text = rng.choice(wordings[asked.structure.relation]["questions"])
        term = asked.structure.subject
        if isinstance(term, Ask):
            text = text.replace("{x}", rng.choice(wordings[term.relation]["nouns"]))
            term = str(term.subject)
        if rng.random() < 0.25:
            at = rng.randrange(len(term))
            term = term[:at] + term[at + 1 :]
        texts.append(text.replace("{x}", term))
    return texts


def question() -> None:
    """Show how long a question takes to read."""
    texts = [q.text for q in generate(World.embedded(), split="all", n=1000, seed=3)]

    def read() -> None:
        read_question.cache_clear()
        for text in texts:
            read_question(text)

    show("reading a question", seconds(read, 5) / len(texts), 0.3e-3)
    texts = free_wordings()
    show(f"one of {len(texts)} free wordings", seconds(read, 5) / len(texts), 0.5e-3)


def reply() -> None:
    """Show how long a simulated candidate's reply takes."""
    queries = [q.text for q in generate(World.embedded(), split="all", n=300, seed=5)]
    ada = Candidate(name="Ada", provider="simulated", options={"elsewhere": 1.0, "hops": 4})

    def ask() -> None:
        for query in queries:
            reply_text_and_tokens(ada, query)

    ask()  # what is read of a question is kept
    show("a simulated reply", seconds(ask, 5) / len(queries), 0.1e-3)


def records() -> None:
    """Show how long the nearest of 20,000 recorded questions takes to find."""
    known = CandidateRecords()
    for i in range(20_000):
        text = f"What is the number of the house {i} in street {i % 97}?"
        known.add(Record(question=text, candidate="Ada", reply=str(i)))
    known.find("warm up", 0.5)
    find = partial(known.find, "Number of house 4711 in street 55?", 0.5)
    show("one of 20,000 records", seconds(find, 5), 1.0)


def matrix() -> None:
    """Show how long a matrix of a thousand candidates takes through each kind of file."""
    draw = np.random.default_rng(0)
    names = [{"name": f"lab/model-{i}"} for i in range(1000)]
    pool = CandidatePool.model_validate({"candidates": names})
    scores = draw.integers(0, 2, (200, 1000)).astype(float)
    texts = tuple(f"Question {i}?" for i in range(200))
    big = ScoreMatrix(texts, pool, scores, draw.random(scores.shape))
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("jsonl", "csv", "npz"):
            file = Path(folder) / f"m.{ending}"

            def through(file: Path = file) -> None:
                big.write(file)
                read_matrix(file)

            show(f"200 x 1,000 through .{ending}", seconds(through, 1), 20.0, "s")


PARTS = {"question": question, "reply": reply, "records": records, "matrix": matrix}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("which", nargs="*", choices=[*PARTS, []], default=[])
    for name in parser.parse_args().which or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
