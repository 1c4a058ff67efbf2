"""What LangSmith costs: CPU of a question with tracing on, against off.

    python -m benchmarks.tracing

The graph and its fake models are those of `benchmarks.overhead`; what is traced goes to a sink in
another process, and its upload thread is part of the CPU that is counted.

Machines are noisy: compare the ratios, which come from interleaved runs in one process.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langsmith import Client, tracing_context

from .overhead import ROUNDS, Ask, through_the_graph

INFO: dict[str, Any] = {
    "version": "0.16.0",
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
        "scale_up_nthreads_limit": 16,
        "scale_up_qsize_trigger": 1000,
        "scale_down_nempty_trigger": 4,
    },
    "instance_flags": {"zstd_compression_enabled": True},
}


def sink() -> None:
    """Print the port, then accept and acknowledge every request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.reply(json.dumps(INFO).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.reply(b"{}")

        def reply(self, body: bytes) -> None:
            self.send_response(202)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


async def _cpu_ms(ask: Ask, questions: int, client: Client | None) -> float:
    start = time.process_time()
    with tracing_context(enabled=client is not None, client=client, project_name="benchmark"):
        for number in range(questions):
            assert await ask(f"question {number}") == "42"
    if client:
        client.flush()
    return (time.process_time() - start) / questions * 1e3


def tracing(questions: int = 40, repeats: int = 31) -> float:
    """Print CPU milliseconds a question of 4 rounds; return the ratio."""
    ask = through_the_graph(0)
    command = [sys.executable, "-c", "from benchmarks.tracing import sink; sink()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            client = Client(api_url=url, api_key="x", info=INFO)

            async def measure() -> list[tuple[float, float]]:
                await _cpu_ms(ask, 5, None), await _cpu_ms(ask, 5, client)  # warm caches up
                return [
                    (await _cpu_ms(ask, questions, None), await _cpu_ms(ask, questions, client))
                    for _ in range(repeats)
                ]

            pairs = asyncio.run(measure())
        finally:
            server.terminate()
    ratio = statistics.median(on / off for off, on in pairs)
    print(
        f"CPU a question of {ROUNDS} rounds: traced {min(on for _, on in pairs):.2f} ms, "
        f"not traced {min(off for off, _ in pairs):.2f} ms, ratio {ratio:.2f} (bar: at most 2.5)"
    )
    return ratio


if __name__ == "__main__":
    tracing()
