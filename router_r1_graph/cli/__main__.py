"""`python -m router_r1_graph.cli` is `router-r1`."""

from . import main

main()
