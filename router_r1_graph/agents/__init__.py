"""Inside agents: the router chooses the model of each step, or answers LangChain's questions.

Needs the extra `agents`.
"""
