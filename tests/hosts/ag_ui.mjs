// AG-UI's own client against a server, all scenarios at once: `node ag_ui.mjs URL KEY`.
import { HttpAgent } from '@ag-ui/client';

const [url, key] = process.argv.slice(2);
const steps = (...each) => JSON.stringify(each);
const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const headers = { authorization: `Bearer ${key}` };

function agent(threadId, path = '', credential = headers) {
  const made = new HttpAgent({ url: `${url}/v1/ag-ui${path}`, headers: credential, threadId });
  const events = [];
  made.subscribe({ onEvent: ({ event }) => { events.push(event); } });
  return { made, events };
}

let asked = 0;
async function ask(each, text, more = {}) {
  each.made.addMessage({ id: `user-${asked += 1}`, role: 'user', content: text });
  return run(each, more);
}
async function run({ made, events }, more = {}) {
  const since = events.length;
  let error = '';
  await made.runAgent(more).catch(failure => { error = failure.message; });
  const happened = events.slice(since);
  return { error, types: happened.map(event => event.type), last: happened.at(-1) };
}
const shown = ({ made }) => made.messages;

async function decided(id, resume) {
  const each = agent(id);
  const paused = await ask(each, steps([['refund', { order: id, amount: 50 }]], 'done'));
  const interrupts = structuredClone(each.made.pendingInterrupts);
  const after = await run(each, { resume: [{ interruptId: interrupts[0].id, ...resume }] });
  const next = await ask(each, steps('And now?'));
  return { paused, interrupts, after, next, messages: shown(each) };
}

const scenarios = {
  async turns(id) {
    const each = agent(id);
    const first = await ask(each, steps('Hello.'), { runId: 'run-1' });
    const second = await ask(each, steps([['refund', { order: id, amount: 5 }]], 'done'));
    const named = agent(id, '/only');
    const third = await ask(named, steps('Again.'));
    return { first, second, third, messages: shown(each) };
  },
  approve: id => decided(id, { status: 'resolved', payload: { approved: true } }),
  reject: id => decided(id, { status: 'resolved', payload: { approved: false, reason: 'no' } }),
  cancelled: id => decided(id, { status: 'cancelled' }),
  edit: id => decided(id, {
    status: 'resolved',
    payload: { approved: true, editedArgs: { order: id, amount: 20, card: '1' } },
  }),
  async wrong(id) {
    const each = agent(id);
    await ask(each, steps([['refund', { order: id, amount: 50 }]], 'done'));
    const [{ id: interruptId }] = each.made.pendingInterrupts;
    const other = agent(id);
    const invalid = await run(other, { resume: [{ interruptId, status: 'resolved', payload: 1 }] });
    const unknown = await run(other, { resume: [{ interruptId: 'x', status: 'cancelled' }] });
    const unanswered = await ask(other, steps('Hello?'));
    return { invalid, unknown, unanswered };
  },
  async others(id) {
    const each = agent(id);
    await ask(each, steps([['grant', { order: id }]], 'done'));
    const first = structuredClone(each.made.pendingInterrupts);
    const look = () => run(each, { resume: [{ interruptId: first[0].id, status: 'cancelled' }] });
    const waiting = await look();
    const [turn, , call] = first[0].id.split('/');
    const answer = await fetch(`${url}/v1/turns/${turn}/approvals/${call}`, {
      method: 'POST',
      headers: { authorization: 'Bearer sw_meg', 'content-type': 'application/json' },
      body: JSON.stringify({ decision: 'approve' }),
    });
    const granted = await look();
    return { first, waiting, code: answer.status, granted, messages: shown(each) };
  },
  // The tools are the page's: their results are the last messages of the next run.
  async clientTools(id) {
    const each = agent(id);
    const tools = [{
      name: 'locate',
      description: 'Where the user is.',
      parameters: { type: 'object', properties: { exact: { type: 'boolean' } } },
    }];
    const first = await ask(
      each, steps([['done', { order: id }], ['locate', { exact: true }]], [['locate', {}]], 'found'), { tools },
    );
    const interrupts = structuredClone(each.made.pendingInterrupts ?? []);
    const answer = (content, error) => {
      const call = each.made.messages.filter(made => made.toolCalls).at(-1).toolCalls.at(-1);
      each.made.addMessage({ id: `tool-${asked += 1}`, role: 'tool', toolCallId: call.id, content, error });
      return run(each, { tools });
    };
    const second = await answer('in Kiel');
    const third = await answer('', 'no permission');
    const next = await ask(each, steps('And now?'), { tools });
    return { first, interrupts, second, third, next, messages: shown(each) };
  },
  async clientToolsAndApproval(id) {
    const each = agent(id);
    const tools = [{ name: 'locate', description: '', parameters: { type: 'object' } }];
    const calls = [['refund', { order: id, amount: 50 }], ['locate', {}]];
    const first = await ask(each, steps(calls, 'both'), { tools });
    const [{ id: interruptId }] = each.made.pendingInterrupts;
    each.made.addMessage({ id: 'tool-both', role: 'tool', toolCallId: 'c0-1', content: 'in Kiel' });
    const resume = [{ interruptId, status: 'resolved', payload: { approved: true } }];
    const second = await run(each, { tools, resume });
    return { first, second, messages: shown(each) };
  },
  async refusedTools(id) {
    const tools = [{ name: 'refund', description: '', parameters: {} }];
    return ask(agent(id), steps('Hello.'), { tools });
  },
  async error(id) {
    const each = agent(id);
    return ask(each, steps([['done', { order: id }]], 'FAIL'));
  },
  async refused(id) {
    const each = agent(id, '/unknown');
    return ask(each, steps('Hello.'));
  },
  async stop(id) {
    const each = agent(id);
    const running = ask(each, steps([['wait', { seconds: 30 }]], 'done'));
    while (!each.events.some(event => event.type === 'TOOL_CALL_END')) await sleep(20);
    each.made.abortRun();
    await running;
    // The session is free again, which it is not before the turn has ended.
    return ask(each, steps('Still there.'));
  },
  async cancel(id) {
    const each = agent(id);
    const running = ask(each, steps([['wait', { seconds: 30 }]], 'done'), {
      forwardedProps: { background: true },
    });
    while (!each.events.some(event => event.type === 'TOOL_CALL_END')) await sleep(20);
    const { parentMessageId } = each.events.find(event => event.type === 'TOOL_CALL_START');
    const turn = parentMessageId.slice(0, parentMessageId.lastIndexOf('.'));
    const answer = await fetch(`${url}/v1/turns/${turn}/cancel`, { method: 'POST', headers });
    return { code: answer.status, ...(await running) };
  },
};

const happened = await Promise.all(
  Object.entries(scenarios).map(async ([name, run]) => [name, await run(`thread-${name}`)]),
);
console.log(JSON.stringify(Object.fromEntries(happened)));
