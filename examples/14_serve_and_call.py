"""Serve the router behind OpenAI's API and ask it with OpenAI's own client (extra `serve`).

Prints:
    William Shakespeare
    answered, calls: 1, $0.000002
"""

import re
import subprocess
import sys

from openai import OpenAI

command = [sys.executable, "-m", "router_r1_graph.cli", "serve", "--port", "0"]
server = subprocess.Popen([*command, "--controller", "keyword"], stderr=subprocess.PIPE, text=True)
try:
    assert server.stderr is not None
    address = re.search(r"http://\S+/v1", server.stderr.readline())  # "... at http://127.0.0.1:..."
    assert address is not None, "the server did not start"
    with OpenAI(base_url=address[0], api_key="unused") as client:
        completion = client.chat.completions.create(
            model="router-r1",
            messages=[{"role": "user", "content": "Who wrote Hamlet?"}],
            extra_body={"budget_usd": 0.01},  # any setting of RouterContext
        )
    print(completion.choices[0].message.content)
    bill = completion.router_r1  # type: ignore[attr-defined]
    print(f"{bill['stop_reason']}, calls: {bill['calls']}, ${bill['cost_usd']:.6f}")
finally:
    server.terminate()
    server.wait()
