"""Stands in for two OpenAI-compatible endpoints, so that 18_llm_controller.py runs offline.

Do not copy it: you have real ones. Each reply is billed as 100 tokens in, 10 out.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

Message = dict[str, Any]


def say(model: str, messages: list[Message]) -> Message:
    """Return what a model says next: the two candidates one line each, the controller by tools."""
    if model == "qwen2.5-7b-instruct":
        return {"content": "William Shakespeare"}
    if model == "gpt-4.1":
        return {"content": "London"}
    replies = [m["content"].partition("\n")[0] for m in messages if m["role"] == "tool"]
    if not replies:
        return _call("Small", "Who wrote Hamlet?")
    if len(replies) == 1:
        return _call("Large", f"What is the capital of the country where {replies[0]} was born?")
    return {"content": replies[-1]}


def _call(name: str, query: str) -> Message:
    function = {"name": name, "arguments": json.dumps({"query": query})}
    return {"content": "", "tool_calls": [{"id": name, "type": "function", "function": function}]}


@contextmanager
def endpoints(count: int = 2) -> Iterator[list[str]]:
    """Serve chat completions until the block ends, and yield the addresses."""
    servers = [HTTPServer(("127.0.0.1", 0), _Handler) for _ in range(count)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield [f"http://127.0.0.1:{server.server_port}/v1" for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", **say(asked["model"], asked["messages"])}
        finish = "tool_calls" if "tool_calls" in message else "stop"
        completion = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        body = json.dumps(completion).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""
