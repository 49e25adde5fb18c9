// The AI SDK's own client against a server, all scenarios at once: `node ai_sdk.mjs URL KEY`.
import {
  DefaultChatTransport,
  generateText,
  jsonSchema,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
  readUIMessageStream,
  stepCountIs,
  streamText,
  tool,
} from 'ai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Chat } from '@ai-sdk/react';

const [url, key] = process.argv.slice(2);
const headers = { authorization: `Bearer ${key}` };

function chat(id, more = {}, body = {}) {
  const transport = new DefaultChatTransport({ api: `${url}/v1/ui/chat`, headers, body });
  const seen = { errors: [], data: [], finished: [] };
  const made = new Chat({
    id,
    transport,
    onError: error => seen.errors.push(error.message),
    onData: part => seen.data.push(part),
    onFinish: ({ finishReason, isAbort }) => seen.finished.push({ finishReason, isAbort }),
    ...more,
  });
  return { made, seen, transport };
}
const steps = (...each) => ({ text: JSON.stringify(each) });
const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
async function until(condition) {
  for (let waited = 0; !condition(); waited += 20) {
    if (waited > 15_000) throw new Error('it did not happen');
    await sleep(20);
  }
}
const shown = ({ made, seen }) => ({ status: made.status, messages: made.messages, ...seen });

const LOCATE = {
  name: 'locate',
  description: 'Where the user is.',
  parameters: { type: 'object', properties: { exact: { type: 'boolean' } } },
};
const NOTE = { name: 'note', parameters: { type: 'object', properties: { text: { type: 'string' } } } };

const scenarios = {
  async turns(id) {
    const each = chat(id);
    await each.made.sendMessage(steps('Hello. ', 'never'));
    await each.made.sendMessage(steps([['refund', { order: id, amount: 5 }]], 'done'));
    await each.made.regenerate();
    return shown(each);
  },
  async approve(id) { return decided(id, { approved: true }); },
  async reject(id) { return decided(id, { approved: false, reason: 'too much' }); },
  async others(id) {
    const each = chat(id);
    await each.made.sendMessage(steps([['grant', { order: id }]], 'done'));
    return shown(each);
  },
  async sources(id) {
    const each = chat(id);
    await each.made.sendMessage(steps([['cite', {}]], 'done'));
    return shown(each);
  },
  async error(id) {
    const each = chat(id);
    await each.made.sendMessage(steps([['done', { order: id }]], 'FAIL'));
    const failed = structuredClone(shown(each));
    await each.made.regenerate();
    return { failed, retried: shown(each) };
  },
  async refused(id) {
    const each = chat(id, {}, { agent: 'unknown' });
    await each.made.sendMessage(steps('Hello.'));
    return shown(each);
  },
  async stop(id) {
    const each = chat(id);
    const sending = each.made.sendMessage(steps([['wait', { seconds: 30 }]], 'done'));
    await until(() => each.made.messages.at(-1)?.parts?.some(part => part.type === 'dynamic-tool'));
    await each.made.stop();
    await sending;
    let active = {};
    for (let count = 0; active && count < 100; count += 1) {
      active = await each.transport.reconnectToStream({ chatId: id });
      await active?.cancel();
      await sleep(50);
    }
    return { ...shown(each), active };
  },
  async cancel(id) {
    const each = chat(id, {}, { background: true });
    const sending = each.made.sendMessage(steps([['wait', { seconds: 30 }]], 'done'));
    await until(() => each.made.messages.at(-1)?.parts?.some(part => part.type === 'dynamic-tool'));
    const { turn } = each.made.messages.at(-1).metadata;
    const answer = await fetch(`${url}/v1/turns/${turn}/cancel`, { method: 'POST', headers });
    await sending;
    return { ...shown(each), code: answer.status };
  },
  async resume(id) {
    const first = chat(id, {}, { background: true });
    const sending = first.made.sendMessage(steps([['wait', { seconds: 4 }]], 'done'));
    await until(() => first.made.messages.at(-1)?.parts?.some(part => part.type === 'dynamic-tool'));
    await first.made.stop();
    await sending;
    const second = chat(id);
    second.made.messages = first.made.messages.slice(0, 1);
    await second.made.resumeStream();
    const third = chat(id);
    await third.made.resumeStream();
    return { left: first.seen, ...shown(second), after: shown(third) };
  },
  async resumePaused(id) {
    const first = chat(id);
    await first.made.sendMessage(steps([['refund', { order: id, amount: 50 }]], 'done'));
    const second = chat(id);
    second.made.messages = first.made.messages;
    await second.made.resumeStream();
    return { first: shown(first), second: shown(second) };
  },
  async read(id) {
    const { transport } = chat(id);
    const message = { id: 'm1', role: 'user', parts: [{ type: 'text', text: '["Hello."]' }] };
    const stream = await transport.sendMessages({
      chatId: id, messages: [message], trigger: 'submit-message',
    });
    let last;
    for await (const message of readUIMessageStream({ stream })) last = message;
    return last;
  },
  // The tools are the page's: it runs them, and the SDK sends their results by itself.
  async clientTools(id) {
    const ran = [];
    const body = { tools: [LOCATE, NOTE] };
    const each = chat(id, {
      sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall: ({ toolCall }) => {
        ran.push(toolCall);
        const call = { tool: toolCall.toolName, toolCallId: toolCall.toolCallId };
        if (toolCall.toolName === 'note') {
          each.made.addToolOutput({ ...call, state: 'output-error', errorText: 'no space left' });
        } else {
          each.made.addToolOutput({ ...call, output: { town: 'Kiel', id: toolCall.toolCallId } });
        }
      },
    }, body);
    await each.made.sendMessage(steps(
      [['locate', { exact: true }], ['done', { order: id }], ['note', { text: 'x' }]],
      [['locate', { exact: false }]],
      'finished',
    ));
    await until(() => each.seen.finished.at(-1)?.finishReason === 'stop' && each.made.status === 'ready');
    await each.made.sendMessage(steps('And now?'));
    return { ran, ...shown(each) };
  },
  async refusedTools(id) {
    const each = chat(id, {}, { tools: [{ name: 'refund' }] });
    await each.made.sendMessage(steps('Hello.'));
    return shown(each);
  },
  async compatibleTools() {
    const model = createOpenAICompatible({
      name: 'seawall', baseURL: `${url}/v1`, apiKey: key, includeUsage: true,
    })('only');
    const tools = {
      locate: tool({
        description: LOCATE.description,
        inputSchema: jsonSchema(LOCATE.parameters),
        execute: ({ exact }) => ({ town: exact ? 'Kiel' : 'the North' }),
      }),
    };
    const prompt = JSON.stringify([
      [['locate', { exact: true }], ['locate', { exact: false }]], [['locate', { exact: true }]], 'found',
    ]);
    const whole = await generateText({ model, tools, prompt, stopWhen: stepCountIs(5) });
    const streamed = streamText({ model, tools, prompt, stopWhen: stepCountIs(5) });
    let text = '';
    for await (const piece of streamed.textStream) text += piece;
    return {
      whole: whole.text,
      outputs: whole.steps.map(step => step.toolResults.map(result => result.output)),
      usage: whole.totalUsage,
      text,
      streamedSteps: (await streamed.steps).length,
    };
  },
  async compatible() {
    const model = createOpenAICompatible({
      name: 'seawall', baseURL: `${url}/v1`, apiKey: key, includeUsage: true,
    })('only');
    const whole = await generateText({ model, prompt: '["Hello."]' });
    const streamed = streamText({ model, prompt: '["Hello again."]' });
    let text = '';
    for await (const piece of streamed.textStream) text += piece;
    return { whole: whole.text, text, reason: await streamed.finishReason };
  },
};

async function decided(id, decision) {
  const each = chat(id, { sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses });
  await each.made.sendMessage(steps([['refund', { order: id, amount: 50 }]], 'done'));
  const asked = structuredClone(each.made.messages);
  const part = asked.at(-1).parts.find(part => part.type === 'dynamic-tool');
  await each.made.addToolApprovalResponse({ id: part.approval.id, ...decision });
  await until(() => each.seen.finished.length === 2);
  await each.made.sendMessage(steps('And now?'));
  return { asked, ...shown(each) };
}

const happened = await Promise.all(
  Object.entries(scenarios).map(async ([name, run]) => [name, await run(`chat-${name}`)]),
);
console.log(JSON.stringify(Object.fromEntries(happened)));
