"""An LLM as the controller, by native tool calls, over two OpenAI-compatible endpoints.

`endpoints()` stands in for them, so that this runs offline. Replace them by your own addresses
(vLLM, SGLang, Ollama, OpenRouter; for OpenAI leave `base_url` out and set OPENAI_API_KEY).

Prints:
    Small: Who wrote Hamlet? -> William Shakespeare
    Large: What is the capital of the country where William Shakespeare was born? -> London
    answered: London
    controller: 3 turns, $0.000168
    Small: $0.000006
    Large: $0.000280
"""

from played import endpoints

from router_r1_graph import Candidate, CandidatePool, ControllerSettings, Trace, create_router_r1

with endpoints() as (vllm, gateway):
    small = Candidate(
        name="Small",
        model="qwen2.5-7b-instruct",
        base_url=vllm,  # "http://localhost:8000/v1"
        strengths=("literature", "everyday questions"),
        input_usd_per_mtok=0.05,
        output_usd_per_mtok=0.10,
    )
    large = Candidate(
        name="Large",
        model="gpt-4.1",
        base_url=gateway,  # api_key_env="MY_KEY" where it wants one: the variable, never the key
        strengths=("geography", "law"),
        input_usd_per_mtok=2.00,
        output_usd_per_mtok=8.00,
    )
    decides = ControllerSettings(
        model="gpt-4.1-mini",
        base_url=gateway,
        protocol="tools",  # or "tags", the paper's language, for models without native calls
        input_usd_per_mtok=0.40,
        output_usd_per_mtok=1.60,
    )
    pool = CandidatePool(name="mine", candidates=(small, large), controller=decides)
    graph = create_router_r1(pool).compile()
    question = "What is the capital of the country where the author of Hamlet was born?"
    result = graph.invoke({"question": question}, context={"budget_usd": 0.05})

for call in Trace.from_state(result).calls:
    print(f"{call.candidate}: {call.query} -> {call.reply}")
print(f"{result['stop_reason']}: {result['answer']}")
bill = result["ledger"]
print(f"controller: {bill['controller']['calls']} turns, ${bill['controller']['cost_usd']:.6f}")
for name, line in bill["candidates"].items():
    print(f"{name}: ${line['cost_usd']:.6f}")
