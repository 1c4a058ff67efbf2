// A chat page with LangChain's React hook useStream, on a LangGraph server: asks one question,
// approves every call that waits, and prints each list of messages that a person would see.
//
//     node use_stream.mjs URL GRAPH QUESTION [CONTEXT as JSON]
import { JSDOM } from "jsdom";

const page = new JSDOM("<div id=page></div>", { url: "http://localhost/" }).window;
globalThis.window = page;
globalThis.document = page.document;
globalThis.sessionStorage = page.sessionStorage;
Object.defineProperty(globalThis, "navigator", { value: page.navigator, configurable: true });

const { createElement, useEffect } = (await import("react")).default;
const { createRoot } = await import("react-dom/client");
const { useStream } = await import("@langchain/langgraph-sdk/react");

const [apiUrl, assistantId, question, context] = process.argv.slice(2);
const options = { context: JSON.parse(context ?? "{}"), streamSubgraphs: true };
const shown = [];
const answered = new Set();

function Chat({ over }) {
  const chat = useStream({
    apiUrl,
    assistantId,
    messagesKey: "messages",
    fetchStateHistory: true,
    onError: (error) => { console.error(error); process.exit(1); },
  });
  const messages = chat.messages.map((message) => [message.type, message.content]);
  if (JSON.stringify(messages) !== JSON.stringify(shown.at(-1))) shown.push(messages);
  useEffect(() => {
    chat.submit({ messages: [{ type: "human", content: question }] }, options);
  }, []);
  useEffect(() => {
    if (chat.isLoading) return;
    if (chat.interrupt && !answered.has(chat.interrupt.id)) {
      answered.add(chat.interrupt.id);
      const decisions = chat.interrupt.value.action_requests.map(() => ({ type: "approve" }));
      chat.submit(undefined, { ...options, command: { resume: { decisions } } });
    } else if (messages.length > 1 && !chat.interrupt) {
      over();
    }
  });
  return null;
}

const root = createRoot(page.document.getElementById("page"));
await new Promise((over) => root.render(createElement(Chat, { over })));
console.log(JSON.stringify({ shown, approved: answered.size }));
process.exit(0);
