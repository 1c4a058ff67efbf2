"""A router that is served in a thread of this process, and how the tests ask it."""

from __future__ import annotations

import threading
import urllib.request
from contextlib import contextmanager

import openai
import pytest

from router_r1_graph import ChatRouterR1

uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
serving = pytest.importorskip("router_r1_graph.serving.app", reason="needs the extra 'serve'")

HAMLET = "What is the currency of the country where the author of Hamlet was born?"


@contextmanager
def serving_at(model=None, *, http="auto", stops=None, **options):
    """Serve a router in a thread of this process; yields the address.

    `stops`, a list, gets the function that ends the runs in progress, to be called in the thread.
    """
    listening = serving.listen("127.0.0.1", 0)
    app = serving.create_app(model or ChatRouterR1(), **options)
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_level="critical"))
    if stops is not None:
        stops.append(app.state.stop)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


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
