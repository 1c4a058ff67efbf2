"""A router that is served in a thread of this process, for benchmarks and tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from router_r1_graph import ChatRouterR1


@contextmanager
def serving_at(
    model: ChatRouterR1 | None = None,
    *,
    waits: bool = True,
    http: Any = "auto",
    loop: Any = "auto",
    stops: list[Callable[[], Any]] | None = None,
    **options: Any,
) -> Iterator[str]:
    """Serve a router on a free port of loopback while it lasts; yields the address.

    Args:
        model: the router; None = the embedded pool's.
        waits: at the end until it has ended: uvicorn sleeps for up to a fifth of a second.
        http: uvicorn's HTTP protocol.
        loop: uvicorn's event loop.
        stops: gets the function that ends the runs in progress, to be called in the thread.
        options: of `create_app`.
    """
    import uvicorn

    from router_r1_graph.serving.app import create_app, listen

    listening = listen("127.0.0.1", 0)
    app = create_app(model or ChatRouterR1(), **options)
    server = uvicorn.Server(uvicorn.Config(app, http=http, loop=loop, log_level="critical"))
    if stops is not None:
        stops.append(app.state.stop)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        if waits:
            thread.join()
