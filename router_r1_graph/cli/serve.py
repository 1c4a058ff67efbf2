"""`router-r1 serve`: the router behind OpenAI's API."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import print_note
from ..errors import ConfigError, MissingExtraError
from ..files import require_lines
from ..invalid import masked
from .options import (
    PoolOption,
    RecordOption,
    ServedControllerOption,
    about,
    given_knobs,
    load_pool,
    loading,
    mask_variable,
    note_simulated,
    takes_knobs,
    warn_budget,
    warn_unsure,
)
from .store_options import takes_replies

EXAMPLES = """[bold]Examples[/bold]

router-r1 serve --port 8080

router-r1 serve --pool mine.yaml --controller openai:gpt-4.1 \\
  --api-key-env ROUTER_KEY

router-r1 serve --explore 0.05 --trace traces.jsonl --shadow knn:runs/knn

# no request may have more than this:
router-r1 serve --budget-usd 0.01 --deadline-seconds 30

In Python: OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="x")
"""


@takes_replies
@takes_knobs(but=("approve_above_usd",))
def serve(
    ctx: typer.Context,
    pool: PoolOption = "embedded",
    controller: ServedControllerOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=65535, help="The port to listen on; 0 = any free one."
        ),
    ] = 8000,
    max_concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many questions are answered at once.")
    ] = 64,
    queue: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="How many more questions wait; further ones get error 429."
        ),
    ] = 256,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            help="The NAME of the environment variable that holds the key; clients have to send "
            "this key."
        ),
    ] = None,
    chores: Annotated[
        str,
        typer.Option(
            help="The controller for prompts that chat UIs send by themselves: a title, tags or "
            "follow-up questions for a conversation. '' = the same as for all other questions."
        ),
    ] = "cheapest",
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="An origin whose web pages may send requests (CORS); '*' = all. Repeatable."
        ),
    ] = None,
    shadow: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="A second controller, which runs on each question after it was answered. No "
            "client gets its answers: /metrics compares them, and their costs, with those of the "
            "first. A call that the first has made is not paid again.",
        ),
    ] = "",
    trace: Annotated[
        Path | None,
        typer.Option(help="Append each run to this JSONL file, with its decisions."),
    ] = None,
    record: RecordOption = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line to standard error for each request.")
    ] = False,
    docs: Annotated[
        bool,
        typer.Option("--docs", help="Also serve /docs and /redoc, which show the API."),
    ] = False,
    context: Any = None,
    replies: Any = None,
) -> None:
    """Serve the router behind OpenAI's API, until SIGTERM or Ctrl-C.

    A setting that is given here is a cap: a client may ask for less, never for more.
    """
    key = os.environ.get(api_key_env, "").strip() if api_key_env else ""
    if api_key_env and not key:
        raise ConfigError(mask_variable("--api-key-env", api_key_env))
    require_lines("--trace", trace, "traces")
    require_lines("--record", record, "replies")
    candidates = load_pool(pool)
    with loading(masked(controller or "the controller")):
        try:
            from prometheus_client import disable_created_metrics

            from ..serving.app import create_app, listen
            from ..serving.app import serve as serve_app
        except ImportError as error:
            raise MissingExtraError("router-r1 serve", "serve", error) from error
        from ..chat.router import ChatRouterR1

        disable_created_metrics()  # times of start, which people who read /metrics take for counts
        caps = given_knobs(ctx, context)
        model = ChatRouterR1(pool=candidates, controller=controller, replies=replies, **caps)
        with about("--chores"):
            api = create_app(
                model,
                max_concurrency=max_concurrency,
                queue=queue,
                api_key=key,
                chores=chores,
                allow_origins=allow_origin or (),
                shadow=shadow,
                traces=trace,
                records=record,
                docs=docs,
            )
        listening = listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"
    beside = f", with {masked(shadow)} as its shadow" if shadow else ""
    print(f"serving {candidates.name} by {model.controller.name} at {url}{beside}", file=sys.stderr)
    note_simulated(candidates)
    for each in api.state.controllers:
        warn_unsure(each, context.cost_weight)
    warn_budget(candidates, context)
    if not key and host not in ("127.0.0.1", "::1", "localhost"):
        print_note(
            "warning: no --api-key-env: anyone who reaches this address can spend your money"
        )
    if access_log:
        _log_requests()
    serve_app(api, listening)


def _log_requests() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access = logging.getLogger("router_r1_graph.access")
    access.handlers, access.propagate = [handler], False
    access.setLevel(logging.INFO)
