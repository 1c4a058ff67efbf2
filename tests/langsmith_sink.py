"""A LangSmith on loopback: takes what the SDK sends in any of its forms, and answers its reads."""

from __future__ import annotations

import gzip
import json
import re
import threading
import uuid
from contextlib import AbstractContextManager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import fmean
from typing import Any
from urllib.parse import parse_qs, urlparse

import zstandard
from langsmith import Client

INFO: dict[str, Any] = {
    "version": "0.18.0",
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
CREATED = {"created_at": "2026-01-01T00:00:00", "modified_at": "2026-01-01T00:00:00"}


def id_of(name: str) -> str:
    """Return the id of a project or dataset."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


class LangSmithSink(AbstractContextManager["LangSmithSink"]):
    """Serves until its `with` ends.

    Attributes:
        runs: by id, posts and patches merged.
        feedback: as it was sent.
        examples: of every dataset.
        sent: every request's body, unpacked.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.feedback: list[dict[str, Any]] = []
        self.datasets: dict[str, dict[str, Any]] = {}
        self.projects: dict[str, dict[str, Any]] = {}
        self.examples: list[dict[str, Any]] = []
        self.sent: list[bytes] = []
        self.asked: list[str] = []
        self.page_size = 100
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...
            def do_GET(self) -> None:
                self.respond()

            def do_POST(self) -> None:
                self.respond()

            def do_PATCH(self) -> None:
                self.respond()

            def respond(self) -> None:
                body = self.body()
                url = urlparse(self.path)
                with sink._lock:
                    sink.sent.append(body)
                    sink.asked.append(f"{self.command} {url.path}")
                    try:
                        code, answer = sink._answer(
                            self.command,
                            re.sub(r"^/(api/)?v1", "", url.path),
                            {k: v[0] for k, v in parse_qs(url.query).items()},
                            body,
                            self.headers.get("Content-Type", ""),
                        )
                    except Exception as error:  # a test has to see what the sink cannot do
                        code, answer = 500, {"detail": repr(error)}
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    data = b""
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        data += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                packing = self.headers.get("Content-Encoding", "")
                if packing == "zstd":
                    return zstandard.ZstdDecompressor().decompressobj().decompress(data)
                return gzip.decompress(data) if packing == "gzip" else data

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def client(self, kind: type[Client] = Client, **options: Any) -> Client:
        """Return a client of this sink."""
        return kind(api_url=self.url, api_key="langsmith-key", info=INFO, **options)

    def tree(self) -> list[dict[str, Any]]:
        """Return the runs in the order of their tree."""
        return sorted(self.runs.values(), key=lambda run: str(run["dotted_order"]))

    @property
    def text(self) -> str:
        """Everything that was sent."""
        return b"\n".join(self.sent).decode(errors="replace")

    def _answer(
        self, method: str, path: str, query: dict[str, str], body: bytes, kind: str
    ) -> tuple[int, Any]:
        if path == "/info":
            return 200, INFO
        if path == "/runs/multipart":
            self._take_parts(body, kind)
            return 202, {}
        data = json.loads(body) if body else {}
        match method, path:
            case "POST", "/runs/batch":
                for event in ("post", "patch"):
                    for run in data.get(event, []):
                        self._merge(run["id"], run, event)
                return 202, {}
            case "POST", "/runs":
                self._merge(data["id"], data, "post")
                return 202, {}
            case "POST", "/api/v2/runs/query":
                return 200, self._query(data)
            case "POST", "/feedback":
                self.feedback.append(data)
                return 200, {**CREATED, **data}
            case "GET", "/sessions":
                known = {run.get("session_name") for run in self.runs.values()} | {*self.projects}
                found = [self._project(query["name"])] if query.get("name") in known else []
                return 200, found
            case "POST", "/sessions":
                self.projects[data["name"]] = data
                return 200, self._project(data["name"])
            case "GET", "/datasets":
                return 200, [d for d in self.datasets.values() if d["name"] == query.get("name")]
            case "POST", "/datasets":
                name = data["name"]
                self.datasets[name] = {"id": id_of(name), **CREATED, "data_type": "kv", **data}
                self.datasets[name] |= {"id": id_of(name), "example_count": 0}
                return 200, self.datasets[name]
            case "POST", "/examples/bulk":
                self.examples += [{**CREATED, **example} for example in data]
                return 200, data
            case "GET", "/examples":
                skip = int(query.get("offset", 0))
                wanted = [e for e in self.examples if e["dataset_id"] == query["dataset"]]
                return 200, wanted[skip:]
        if method == "POST" and (dataset := re.search(r"/datasets/([\w-]+)/examples", path)):
            ids = self._take_examples(dataset[1], body, kind)
            return 200, {"count": len(ids), "example_ids": ids, "as_of": CREATED["created_at"]}
        if method == "PATCH" and path.startswith("/runs/"):
            self._merge(path.rsplit("/", 1)[1], data, "patch")
            return 202, {}
        return 404, {"detail": f"the sink has no {method} {path}"}

    def _field(self, run: dict[str, Any], name: str) -> Any:
        if name != "feedback_stats":
            return run.get(name)
        scores: dict[str, list[Any]] = {}
        for one in self.feedback:
            if one["run_id"] == run["id"]:
                scores.setdefault(one["key"], []).append(one.get("score"))
        return {
            key: {"n": len(all_), "avg": fmean(numbers) if numbers else None}
            for key, all_ in scores.items()
            for numbers in [[score for score in all_ if score is not None]]
        }

    def _project(self, name: str) -> dict[str, Any]:
        more = {"tenant_id": id_of("tenant"), "start_time": CREATED["created_at"]}
        reference = {"reference_dataset_id": None, **self.projects.get(name, {})}
        return {**more, **reference, "id": id_of(name), "name": name}

    def _merge(self, run_id: str, data: dict[str, Any], event: str) -> None:
        run = self.runs.setdefault(run_id, {"id": run_id})
        said = {key: value for key, value in data.items() if value is not None}
        # The client sends by several threads: a run's start may come after its end.
        run.update({**said, **run} if event == "post" else said)

    def _take_parts(self, body: bytes, kind: str) -> None:
        for name, data in parts(body, kind):
            event, run_id, *field = name.split(".", 2)
            if event == "feedback":
                self.feedback.append(data)
            elif event in ("post", "patch"):
                self._merge(run_id, {field[0]: data} if field else data, event)

    def _take_examples(self, dataset_id: str, body: bytes, kind: str) -> list[str]:
        found: dict[str, dict[str, Any]] = {}
        for name, data in parts(body, kind):
            example_id, _, field = name.partition(".")
            found.setdefault(example_id, {"id": example_id, "dataset_id": dataset_id, **CREATED})
            found[example_id].update({field: data} if field else data)
        self.examples += found.values()
        return list(found)

    def _query(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Answer the v2 query: tags and equality of names are the filters it knows."""
        runs = [run for run in self.tree() if id_of(run["session_name"]) in wanted["project_ids"]]
        runs = [run for run in runs if run["start_time"] >= wanted["min_start_time"]]
        for tag in re.findall(r'has\(tags, "([^"]+)"\)', wanted.get("filter", "")):
            runs = [run for run in runs if tag in run["tags"]]
        for name in re.findall(r'eq\(name, "([^"]+)"\)', wanted.get("filter", "")):
            runs = [run for run in runs if name == run["name"]]
        start = int(wanted.get("cursor") or 0)
        page = runs[start : start + self.page_size]
        more = start + self.page_size < len(runs)
        fields = [field.lower() for field in wanted["selects"]]
        return {
            "items": [{f: self._field(run, f) for f in fields} for run in page],
            "next_cursor": str(start + self.page_size) if more else None,
        }


def parts(body: bytes, kind: str) -> list[tuple[str, Any]]:
    """Return the named JSON parts of a multipart body."""
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    return [
        (
            str(part.get_param("name", header="content-disposition")),
            json.loads(part.get_payload(decode=True)),
        )
        for part in message.get_payload()
    ]
