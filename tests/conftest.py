"""What every test gets: an environment without keys, proxies or tracing, and a few fixtures.

The environment is set when this file is imported, before any library reads it.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import none

from openai_server import Answer, OpenAIServer

for name in list(os.environ):
    # Keys, so that no test can spend money; OPENAI_BASE_URL and its like, so that none asks
    # elsewhere; proxies, so that loopback is loopback.
    if name.upper().endswith(("_API_KEY", "_PROXY")) or name.startswith(
        ("OPENAI_", "LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_")
    ):
        del os.environ[name]
os.environ.update(
    LANGSMITH_TRACING="false",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",  # xdist already uses every core
    TOKENIZERS_PARALLELISM="false",
    # Each client of a provider reads the authorities of TLS: 25 ms for those of a system, and no
    # test needs one.
    SSL_CERT_FILE=str(Path(__file__).with_name("authority.pem")),
)

# `make test ARGS=--hypothesis-profile=deep` looks further than every run can afford.
settings.register_profile(
    "ci",
    deadline=None,  # a busy machine is not a failing test
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", settings.get_profile("ci"), derandomize=False, max_examples=5000)
settings.load_profile("ci")


@given(none())
def _first_example(_: None) -> None:
    """Have hypothesis set itself up."""


def pytest_collection() -> None:
    """Have done what is quick among few objects, and takes long among the millions of torch."""
    _first_example()  # it looks for what refers to its random stream
    gc.disable()  # nothing of what is imported is garbage


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave each n-th case of a test that is `sampled` to `make test`, the others to test-long."""
    seen: Counter[str] = Counter()
    for item in items:
        if sampled := item.get_closest_marker("sampled"):
            test = item.nodeid.partition("[")[0]
            if seen[test] % sampled.args[0]:
                item.add_marker("long")
            seen[test] += 1


def pytest_collection_finish() -> None:
    """Spare the collector what stays: torch and its like are millions of objects.

    It looks through what a test imports each time that it runs: so it runs less often.
    """
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer | Mapping[str, Answer]], OpenAIServer]]:
    """Start OpenAI-compatible servers, `serve(answer)`, that stop when the test ends."""
    with ExitStack() as servers:
        yield lambda answer: servers.enter_context(OpenAIServer(answer))
