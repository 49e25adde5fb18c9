// What JavaScript's clients of the Responses API see, by scenario, as JSON.

import { createOpenAI } from '@ai-sdk/openai';
import { createOpenResponses } from '@ai-sdk/open-responses';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import OpenAI, { APIError } from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const [url, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const weather = {
  type: 'function',
  name: 'get_weather',
  parameters: { type: 'object', properties: { location: { type: 'string' } } },
};
const script = (...steps) => JSON.stringify(steps);
const model = 'open';

const official = {
  async answer() {
    const first = await client.responses.create({ model, input: 'one' });
    const further = { model, input: 'two', previous_response_id: first.id };
    const second = await client.responses.create(further);
    const again = await client.responses.retrieve(second.id);
    return { texts: [first.output_text, second.output_text, again.output_text] };
  },
  async stream() {
    const stream = client.responses.stream({ model, input: 'one' });
    const types = [];
    for await (const event of stream) types.push(event.type);
    return { types: [...new Set(types)], text: (await stream.finalResponse()).output_text };
  },
  async parsed() {
    const format = zodTextFormat(z.object({ name: z.string(), guests: z.number() }), 'party');
    const response = await client.responses.parse({ model, input: 'x', text: { format } });
    return response.output_parsed;
  },
  async tools() {
    const first = await client.responses.create({ model, input: 'weather?', tools: [weather] });
    const [call] = first.output;
    const second = await client.responses.create({
      model,
      previous_response_id: first.id,
      input: [{ type: 'function_call_output', call_id: call.call_id, output: 'sunny' }],
    });
    return { name: call.name, text: second.output_text };
  },
  async background() {
    const input = script([['wait', { seconds: 0.2 }]], 'It is done.');
    const first = await client.responses.create({ model, input, background: true });
    const events = [];
    const stream = await client.responses.retrieve(first.id, { stream: true, starting_after: 0 });
    for await (const event of stream) events.push(event);
    const done = await client.responses.retrieve(first.id);
    return { status: first.status, last: events.at(-1).type, text: done.output_text };
  },
  async error() {
    try {
      await client.responses.create({ model, input: 'x', tools: [{ type: 'web_search' }] });
    } catch (error) {
      return { known: error instanceof APIError, status: error.status, param: error.param };
    }
  },
};

const provider = createOpenAI({ baseURL: `${url}/v1`, apiKey: key });
const waiting = { order: `${process.pid}-${Date.now()}`, amount: 50 };

const sdk = (chosen) => ({
  async answer() {
    const first = { role: 'user', content: 'one' };
    const answer = await generateText({ model: chosen, messages: [first] });
    const second = { role: 'user', content: 'two' };
    const messages = [first, ...answer.response.messages, second];
    const next = await generateText({ model: chosen, messages });
    return { texts: [answer.text, next.text], usage: answer.usage.totalTokens };
  },
  async own() {
    const prompt = script([['wait', { seconds: 0 }]], 'Looked.');
    const stream = streamText({ model: chosen, prompt });
    const types = [];
    for await (const part of stream.fullStream) types.push(part.type);
    return { text: await stream.text, types };
  },
  async tools() {
    const get_weather = tool({
      inputSchema: z.object({ location: z.string() }),
      execute: ({ location }) => `sunny in ${location}`,
    });
    const asked = { model: chosen, tools: { get_weather }, stopWhen: stepCountIs(3) };
    const answer = await generateText({ ...asked, prompt: 'weather?' });
    return { text: answer.text, steps: answer.steps.length };
  },
});

const approvals = (chosen) => ({
  async approval() {
    const first = { role: 'user', content: script([['refund', waiting]], 'Refunded.') };
    const tools = { own: provider.tools.mcp({ serverLabel: 'seawall', serverUrl: url }) };
    const asked = await generateText({ model: chosen, tools, messages: [first] });
    const request = asked.content.find((part) => part.type === 'tool-approval-request');
    const response = {
      type: 'tool-approval-response',
      approvalId: request.approvalId,
      approved: true,
      providerExecuted: true,
    };
    const messages = [first, ...asked.response.messages, { role: 'tool', content: [response] }];
    const done = await generateText({ model: chosen, tools, messages });
    return { text: done.text, types: done.content.map((part) => part.type) };
  },
});

const open = createOpenResponses({ name: 'seawall', url: `${url}/v1/responses`, apiKey: key });
const openai = provider.responses(model);
const scenarios = {
  official,
  'open-responses': sdk(open(model)),
  openai: { ...sdk(openai), ...approvals(openai) },
};
const seen = {};
for (const [name, found] of Object.entries(scenarios)) {
  seen[name] = {};
  for (const [scenario, run] of Object.entries(found)) seen[name][scenario] = await run();
}
console.log(JSON.stringify(seen));
