"""The router in the place of a chat model: in a chain, in a batch, with settings for one call.

Prints:
    ['William Shakespeare', 'Jane Austen']
    William Shakespeare | round_limit | 1 call, $0.000002
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from router_r1_graph import ChatRouterR1

model = ChatRouterR1(pool="embedded", controller="keyword", budget_usd=0.01)
prompt = ChatPromptTemplate([("human", "Who wrote {work}?")])

chain = prompt | model | StrOutputParser()
print(chain.batch([{"work": "Hamlet"}, {"work": "Emma"}]))

message = model.bind(max_rounds=1).invoke(
    "What is the currency of the country where the author of Hamlet was born?"
)
bill = message.response_metadata
print(f"{message.text} | {bill['stop_reason']} | {bill['calls']} call, ${bill['cost_usd']:.6f}")
