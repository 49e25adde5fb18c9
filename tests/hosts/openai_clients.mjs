// Programs for Node.js that speak OpenAI's APIs, each used as its documentation says: what each saw, by client and
// feature, as JSON. What failed is the text of its error.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, Output, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const [url, key] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const model = "shop";
const Person = z.object({ name: z.string(), age: z.number() });
const user = (content) => ({ role: "user", content });
const dialogue = [user("one"), { role: "assistant", content: "said" }, user("history")];
const weather = {
  type: "function",
  name: "get_weather",
  description: "The weather in a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
  strict: true,
};
const { type, ...definition } = weather;
const chatTools = [{ type, function: definition }];
const weatherIn = (args) => `sunny in ${JSON.parse(args).city}`;
const asked = "weather in Oslo and Rome";

// Two by two pixels, red.
const png =
  "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAAN" +
  "HQEDasKb6QAAAABJRU5ErkJggg==";
const image = `data:image/png;base64,${png}`;

const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });

async function answeredTools(first, create) {
  const messages = [user(asked), first];
  for (const each of first.tool_calls ?? [])
    messages.push({
      role: "tool",
      tool_call_id: each.id,
      content: weatherIn(each.function.arguments),
    });
  return create(messages);
}

const chat = {
  async text() {
    const made = await client.chat.completions.create({ model, messages: [user("hi")] });
    return made.choices[0].message.content;
  },
  async stream() {
    const pieces = [];
    const stream = await client.chat.completions.create({
      model,
      messages: [user("hi there")],
      stream: true,
    });
    for await (const each of stream)
      if (each.choices[0]?.delta?.content) pieces.push(each.choices[0].delta.content);
    return pieces;
  },
  async history() {
    const made = await client.chat.completions.create({ model, messages: dialogue });
    return made.choices[0].message.content;
  },
  async tools() {
    const create = async (messages) =>
      (await client.chat.completions.create({ model, messages, tools: chatTools })).choices[0]
        .message;
    return (await answeredTools(await create([user(asked)]), create)).content;
  },
  async tools_streamed() {
    const create = async (messages) =>
      (await client.chat.completions.stream({ model, messages, tools: chatTools }).finalMessage());
    return (await answeredTools(await create([user(asked)]), create)).content;
  },
  async structured() {
    const made = await client.chat.completions.parse({
      model,
      messages: [user("person")],
      response_format: zodResponseFormat(Person, "person"),
    });
    return made.choices[0].message.parsed;
  },
  async image() {
    const parts = [
      { type: "text", text: "look" },
      { type: "image_url", image_url: { url: image } },
    ];
    const made = await client.chat.completions.create({ model, messages: [user(parts)] });
    return made.choices[0].message.content;
  },
  async usage() {
    const made = await client.chat.completions.create({ model, messages: [user("hi")] });
    return made.usage.total_tokens;
  },
  async error() {
    try {
      await client.chat.completions.create({ model: "none", messages: [user("hi")] });
    } catch (error) {
      return error instanceof OpenAI.NotFoundError ? error.code : String(error);
    }
  },
};

const returned = (made) =>
  made.output
    .filter((each) => each.type === "function_call")
    .map((each) => ({
      type: "function_call_output",
      call_id: each.call_id,
      output: weatherIn(each.arguments),
    }));

const responses = {
  async text() {
    return (await client.responses.create({ model, input: "hi" })).output_text;
  },
  async stream() {
    const pieces = [];
    for await (const each of client.responses.stream({ model, input: "hi there" }))
      if (each.type === "response.output_text.delta") pieces.push(each.delta);
    return pieces;
  },
  async history() {
    const first = await client.responses.create({ model, input: "one" });
    const more = { model, input: "history", previous_response_id: first.id };
    return (await client.responses.create(more)).output_text;
  },
  async tools() {
    const first = await client.responses.create({ model, input: asked, tools: [weather] });
    const more = { model, input: returned(first), previous_response_id: first.id };
    return (await client.responses.create({ ...more, tools: [weather] })).output_text;
  },
  async tools_streamed() {
    const first = await client.responses
      .stream({ model, input: asked, tools: [weather] })
      .finalResponse();
    const more = { model, input: returned(first), previous_response_id: first.id };
    return (await client.responses.stream({ ...more, tools: [weather] }).finalResponse())
      .output_text;
  },
  async structured() {
    const format = zodTextFormat(Person, "person");
    return (await client.responses.parse({ model, input: "person", text: { format } }))
      .output_parsed;
  },
  async image() {
    const parts = [
      { type: "input_text", text: "look" },
      { type: "input_image", image_url: image, detail: "auto" },
    ];
    return (await client.responses.create({ model, input: [user(parts)] })).output_text;
  },
  async usage() {
    return (await client.responses.create({ model, input: "hi" })).usage.total_tokens;
  },
};

// Of the AI SDK, over any of its providers.
function sdk(language) {
  const tools = {
    get_weather: tool({
      description: "The weather in a city.",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `sunny in ${city}`,
    }),
  };
  const common = { model: language, maxRetries: 0 };
  return {
    async text() {
      return (await generateText({ ...common, prompt: "hi" })).text;
    },
    async stream() {
      const pieces = [];
      for await (const each of streamText({ ...common, prompt: "hi there" }).textStream)
        pieces.push(each);
      return pieces;
    },
    async history() {
      return (await generateText({ ...common, messages: dialogue })).text;
    },
    async tools() {
      return (await generateText({ ...common, prompt: asked, tools, stopWhen: isStepCount(3) }))
        .text;
    },
    async tools_streamed() {
      const run = streamText({ ...common, prompt: asked, tools, stopWhen: isStepCount(3) });
      await run.consumeStream();
      return await run.text;
    },
    async structured() {
      const made = await generateText({
        ...common,
        prompt: "person",
        output: Output.object({ schema: Person }),
      });
      return made.output;
    },
    async image() {
      const parts = [
        { type: "text", text: "look" },
        { type: "file", data: Buffer.from(png, "base64"), mediaType: "image/png" },
      ];
      return (await generateText({ ...common, messages: [user(parts)] })).text;
    },
    async usage() {
      return (await generateText({ ...common, prompt: "hi" })).usage.totalTokens;
    },
  };
}

const compatible = createOpenAICompatible({
  name: "seawall",
  baseURL,
  apiKey: key,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const clients = {
  "openai for Node.js": chat,
  "openai for Node.js (responses)": responses,
  "@ai-sdk/openai-compatible": sdk(compatible(model)),
  "@ai-sdk/openai (responses)": sdk(createOpenAI({ baseURL, apiKey: key }).responses(model)),
};

const found = {};
for (const [name, features] of Object.entries(clients)) {
  found[name] = {};
  for (const [feature, run] of Object.entries(features))
    try {
      found[name][feature] = { seen: await run() };
    } catch (error) {
      found[name][feature] = { error: `${error.name}: ${error.message}`, trace: error.stack };
    }
}
console.log(JSON.stringify(found));
