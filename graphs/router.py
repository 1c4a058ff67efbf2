"""The router itself: `question` (or `messages`) in; answer, stop reason and the bill out."""

from graphs import pool_and_controller, served
from router_r1_graph import create_router_r1

graph = create_router_r1(*pool_and_controller()).compile(name="router")
serve = served(graph)
