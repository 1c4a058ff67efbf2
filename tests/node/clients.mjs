// Asks a served router through JavaScript's clients; prints what each of them got, as JSON.
// usage: node clients.mjs http://127.0.0.1:8000/v1
import OpenAI from "openai";
import { ChatOpenAI } from "@langchain/openai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = process.argv[2];
const prompt = "Who wrote Hamlet?";
const messages = [{ role: "user", content: prompt }];
const author = z.object({ author: z.string() });
const weather = tool({
  description: "The weather.",
  inputSchema: z.object({ city: z.string() }),
  execute: async () => "sunny",
});

const client = new OpenAI({ baseURL, apiKey: "x", maxRetries: 0 });
const langchain = new ChatOpenAI({ model: "router-r1", apiKey: "x", configuration: { baseURL } });
const openai = createOpenAI({ baseURL, apiKey: "x" });
// Without supportsStructuredOutputs, the AI SDK drops the schema and no server gets to see it.
const compatible = createOpenAICompatible({ name: "router", baseURL, apiKey: "x", supportsStructuredOutputs: true });

const models = {
  "ai responses": openai("router-r1"),
  "ai chat": openai.chat("router-r1"),
  "ai compatible": compatible("router-r1"),
};
const asks = {
  openai: async () => (await client.chat.completions.create({ model: "router-r1", messages })).choices[0].message.content,
  "openai stream": async () => {
    const stream = client.chat.completions.stream({ model: "router-r1", messages });
    return (await stream.finalChatCompletion()).choices[0].message.content;
  },
  "openai responses": async () => (await client.responses.create({ model: "router-r1", input: prompt })).output_text,
  langchain: async () => (await langchain.invoke(prompt)).content,
  "langchain stream": async () => {
    let text = "";
    for await (const piece of await langchain.stream(prompt)) text += piece.content;
    return text;
  },
  "langchain structured": async () => (await langchain.withStructuredOutput(author).invoke(prompt)).author,
};
for (const [name, model] of Object.entries(models)) {
  asks[`${name} text`] = async () => (await generateText({ model, prompt })).text;
  asks[`${name} tools`] = async () => (await generateText({ model, prompt, tools: { weather } })).text;
  asks[`${name} stream`] = async () => await streamText({ model, prompt }).text;
  asks[`${name} object`] = async () => (await generateObject({ model, prompt, schema: author })).object.author;
}

const found = {};
for (const [name, ask] of Object.entries(asks)) {
  try {
    found[name] = await ask();
  } catch (error) {
    found[name] = `${error.name}: ${error.message}`;
  }
}
console.log(JSON.stringify(found));
