"""`router-r1 serve` that is killed at random under requests, and started again on its replies."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from .faults import Attempt, FaultServer
from .kills import DELAYS, NAMES, Kill, kill_runs, pool_text, start

_AT_ONCE = 8
_START_SECONDS = 120.0


def crash_serve(
    kills: int,
    seed: int,
    *,
    questions: int = 40,
    within_seconds: float = 4.0,
    module: str = "router_r1_graph.cli",
) -> list[str]:
    """Kill servers of so many questions; return what is wrong.

    Each server is asked all the questions, also those that one before it has answered. `module` is
    the command line.
    """
    answers: dict[Path, dict[str, set[str]]] = {}
    with tempfile.TemporaryDirectory() as made, FaultServer(rate=0, delays=DELAYS) as server:
        folder = Path(made)
        pool, log = folder / "pool.yaml", folder / "log"
        pool.write_text(pool_text(server))
        log.touch()

        def begin(out: Path) -> BaseProcess:
            options = ["--pool", str(pool), "--controller", "vote", "--port", "0"]
            options += ["--replies", f"{out}.sqlite", "--replies-every"]
            printed = log.stat().st_size
            process = start(["-m", module, "serve", *options], log)
            asked = [f"served question {n}?" for n in range(questions)]
            said = answers.setdefault(out, defaultdict(set))
            clients = partial(_ask_all, process.pid or 0, log, printed, asked, said)
            threading.Thread(target=clients, daemon=True).start()
            return process

        begin(folder / "whole").join()
        whole = answers[folder / "whole"]

        def compare(out: Path, _: Sequence[Attempt], __: Sequence[Kill]) -> list[str]:
            odd = [asked for asked in whole if answers[out][asked] != whole[asked]]
            return [f"{out.name}: {asked} {answers[out][asked]}" for asked in odd]

        if len(server.attempts) != len(NAMES) * questions:
            return [f"without a kill, {len(server.attempts)} calls for {questions} questions"]
        return kill_runs(
            begin,
            compare,
            server,
            folder,
            kills,
            random.Random(seed),
            within_seconds=within_seconds,
        )


def _ask_all(
    pid: int, log: Path, printed: int, questions: Sequence[str], said: dict[str, set[str]]
) -> None:
    """Ask a server that has just been started, then end it; one that is killed leaves gaps.

    Args:
        pid: its process.
        log: where it prints its address.
        printed: how many bytes were there before.
        questions: those to ask.
        said: gets what came, by the questions.
    """
    url, end = None, time.monotonic() + _START_SECONDS
    while not (url := re.search(rb"serving .* at (http\S+/v1)", log.read_bytes()[printed:])):
        if time.monotonic() > end:
            break
        time.sleep(0.02)

    def ask(client: httpx.Client, question: str) -> None:
        body = {"model": "router-r1", "messages": [{"role": "user", "content": question}]}
        with suppress(httpx.TransportError):  # it was killed
            response = client.post("chat/completions", json=body)
            said[question].add(_outcome(response))

    if url:
        with (
            httpx.Client(base_url=url[1].decode(), timeout=60) as client,
            ThreadPoolExecutor(_AT_ONCE) as threads,
        ):
            list(threads.map(partial(ask, client), questions))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)


def _outcome(response: httpx.Response) -> str:
    """Return what may not depend on kills: not who paid for a stored reply."""
    if response.status_code != 200:
        return f"{response.status_code}: {response.text:.200}"
    data = response.json()
    bill = data["router_r1"]
    calls = sorted(
        (name, line["calls"], line["failed_calls"], line["input_tokens"], line["output_tokens"])
        for name, line in bill["candidates"].items()
    )
    return json.dumps([data["choices"][0]["message"]["content"], bill["stop_reason"], calls])
