"""Follow a run while it happens: each turn of the controller and each reply, as they come.

`stream_mode="updates"` says which node is done; `"messages"` gives the tokens of a chat model or a
policy one by one.

Prints:
    human: What is the capital of the country where the author of Hamlet was born?
    ai: <think> Quillora fits literature at the best price. </think>
    <search> Quillora: Who wrote Hamlet? </search>
    tool: William Shakespeare
    (left: 3 rounds)
    ai: <think> Ancestil fits biography at the best price. </think>
    <search> Ancestil: In which country was William Shakespeare born? </search>
    tool: I believe the answer is the United Kingdom.
    (left: 2 rounds)
    ai: <think> Vantegro fits geography at the best price. </think>
    <search> Vantegro: Name the capital of the United Kingdom. </search>
    tool: London
    (left: 1 round)
    ai: <think> Everything needed is known. </think>
    <answer> London </answer>
    stopped: answered
"""

from router_r1_graph import CandidatePool, KeywordController, create_router_r1

graph = create_router_r1(CandidatePool.embedded(), KeywordController()).compile()
question = "What is the capital of the country where the author of Hamlet was born?"
shown = 0
for state in graph.stream({"question": question}, stream_mode="values"):
    for message in state.get("scratchpad", [])[shown:]:
        print(f"{message.type}: {message.text}")
        shown += 1
print(f"stopped: {state['stop_reason']}")
