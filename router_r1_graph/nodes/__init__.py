"""The nodes of the graph: a controller's turns, the rounds of calls, and how a run ends."""
