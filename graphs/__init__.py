"""Graphs without arguments, for langgraph.json: `langgraph dev`, Studio, the Agent Server.

Two environment variables set the pool and the controller. Without them everything is simulated, and
neither a key nor a network is needed:

    ROUTER_R1_POOL        a pool file, or the name of a shipped pool (embedded)
    ROUTER_R1_CONTROLLER  a spec as for `router-r1 --controller` (the pool's, else keyword)

No graph here has a checkpointer or a store: the server brings its own.
"""

from __future__ import annotations

import os

from router_r1_graph import CandidatePool, Controller, parse_controller


def pool_and_controller() -> tuple[CandidatePool, Controller]:
    """Return what the environment names.

    Raises:
        ConfigError: the pool or the controller cannot be used.
    """
    pool = CandidatePool.from_yaml(os.environ.get("ROUTER_R1_POOL") or "embedded")
    return pool, parse_controller(os.environ.get("ROUTER_R1_CONTROLLER"), pool)
