// LangGraph's SDK for JavaScript on a LangGraph server: asks one question, approves every call that
// waits, and asks the served router as a node of a graph in JavaScript.
//
//     node sdk.mjs URL QUESTION
import { MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { RemoteGraph } from "@langchain/langgraph/remote";
import { Client } from "@langchain/langgraph-sdk";

const [url, question] = process.argv.slice(2);
const client = new Client({ apiUrl: url });

const context = { approve_above_usd: 0 };
const { thread_id: thread } = await client.threads.create();
let run = await client.runs.wait(thread, "router", { input: { question }, context });
let approved = 0;
for (; run.__interrupt__; approved++) {
  const resume = { [run.__interrupt__[0].id]: { approve: true } };
  run = await client.runs.wait(thread, "router", { command: { resume }, context });
}

const input = { messages: [{ type: "human", content: question }] };
const streamed = [];
for await (const part of client.runs.stream(null, "chat_agent", { input, streamMode: "messages-tuple" }))
  if (part.event === "messages") streamed.push(part.data[0].content);

const graph = new StateGraph(MessagesAnnotation)
  .addNode("router", new RemoteGraph({ graphId: "chat_agent", url }))
  .addEdge(START, "router")
  .compile();
const { messages } = await graph.invoke({ messages: [{ role: "user", content: question }] });

console.log(JSON.stringify({
  approved,
  answer: run.answer,
  streamed,
  messages: messages.map((message) => message.content),
  calls: messages.at(-1).response_metadata.router_r1.calls,
}));
