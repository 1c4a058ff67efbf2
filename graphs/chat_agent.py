"""The router as a chat agent: messages in, one message out. Studio's chat mode needs this one."""

from graphs import pool_and_controller, served
from router_r1_graph import create_router_r1_agent

graph = create_router_r1_agent(*pool_and_controller(), name="chat_agent")
serve = served(graph)
