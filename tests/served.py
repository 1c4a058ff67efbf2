"""A router that is served in a thread of this process, and how the tests ask it."""

from __future__ import annotations

import urllib.request
from contextlib import contextmanager
from functools import partial

import openai
import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("router_r1_graph.serving.app", reason="needs the extra 'serve'")

from benchmarks import served

HAMLET = "What is the currency of the country where the author of Hamlet was born?"


# An older uvicorn sets the policy of event loops for the whole process, and so for other tests.
LOOP = "auto" if hasattr(uvicorn.Config, "get_loop_factory") else "asyncio"
serving_at = partial(served.serving_at, waits=False, loop=LOOP)  # it ends beside the next test


@contextmanager
def client_of(url, key="x"):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        yield client


def ask(url, question=HAMLET, **options):
    with client_of(url) as client:
        said = [{"role": "user", "content": question}]
        reply = client.chat.completions.create(
            **{"model": "router-r1", "messages": said, **options}
        )
        return list(reply) if options.get("stream") else reply


def get(url):
    with urllib.request.urlopen(url, timeout=100) as response:
        return response.read().decode()
