"""Record every reply, make a pool of the records, and ask again: no model is called, or paid.

The bill of a replay shows the cost and the seconds of the recorded replies.

Prints:
    4 replies recorded
    constant:Vantegro: Mark Twain, $0.000001
    constant:Quillora: William Shakespeare, $0.000002
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from router_r1_graph import (
    CandidatePool,
    Recorder,
    Source,
    create_router_r1,
    parse_controller,
    pool_from_records,
    total,
)

question = {"question": "Who wrote Hamlet?"}
pool = CandidatePool.embedded()
with TemporaryDirectory() as folder:
    records = Path(folder, "records.jsonl")
    graph = create_router_r1(pool, parse_controller("vote:4", pool)).compile()
    graph.invoke(question, {"callbacks": [Recorder(records)]})
    print(f"{len(records.read_text().splitlines())} replies recorded")

    replay = pool_from_records(Source(records), Path(folder, "replay.yaml"))
    for spec in ("constant:Vantegro", "constant:Quillora"):
        graph = create_router_r1(replay, parse_controller(spec, replay)).compile()
        result = graph.invoke(question)
        cost = total(result["ledger"])["cost_usd"]
        print(f"{spec}: {result['answer']}, ${cost:.6f}")
