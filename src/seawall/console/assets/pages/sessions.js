// The sessions of one subject, and one session as a conversation.
import { html, useEffect, useState } from "../view.js";
import { get, may, me } from "../api.js";
import { count, money, pretty, time } from "../format.js";
import { link } from "../links.js";

export default function Sessions({ path, query }) {
  if (path[0]) return html`<${Session} key=${path[0]} id=${path[0]} query=${query} />`;
  return html`<${List} query=${query} />`;
}

function List({ query }) {
  const asked = { tenant: query.tenant || me.tenant, subject: query.subject || me.subject };
  const [sessions, setSessions] = useState([]);
  const [cursor, setCursor] = useState(null);
  const [fault, setFault] = useState("");
  const load = async (after) => {
    try {
      const page = await get("sessions", { ...asked, cursor: after });
      setSessions((before) => (after ? [...before, ...page.sessions] : page.sessions));
      setCursor(page.cursor);
      setFault("");
    } catch (error) {
      setFault(error.message);
    }
  };
  useEffect(() => { load(null); }, [asked.tenant, asked.subject]);
  const search = (event) => {
    event.preventDefault();
    const values = Object.fromEntries([...new FormData(event.target)].map(([k, v]) => [k, v.trim()]));
    if (values.session) window.location.hash = link("sessions", [values.session], { tenant: values.tenant, subject: values.subject });
    else window.location.hash = link("sessions", [], { tenant: values.tenant, subject: values.subject });
  };
  return html`
    <h1>Sessions</h1>
    <form class="search" role="search" onSubmit=${search} key=${`${asked.tenant} ${asked.subject}`}>
      <label>Tenant<input name="tenant" defaultValue=${asked.tenant} required maxlength="256" /></label>
      <label>Subject<input name="subject" defaultValue=${asked.subject} required maxlength="256" /></label>
      <label>Session<input name="session" maxlength="64" /></label>
      <button class="primary">Find</button>
    </form>
    ${fault && html`<p class="notice bad" role="alert">${fault}</p>`}
    ${!fault && sessions.length === 0 && html`<p class="notice">${asked.subject} of ${asked.tenant} has no sessions. Those of others are found by tenant and subject, which each of the <a href="#/turns">recent turns</a> shows.</p>`}
    ${sessions.length > 0 && html`<div class="scroll panel" tabindex="0" role="region" aria-label="Sessions"><table>
      <thead><tr><th>Session</th><th>Agent</th><th class="number">Turns</th><th>Began</th><th>Last turn</th></tr></thead>
      <tbody>${sessions.map((each) => html`<tr key=${each.session}>
        <td><a class="mono" href=${link("sessions", [each.session], asked)}>${each.session}</a></td><td>${each.agent}</td>
        <td class="number">${count(each.version)}</td><td>${time(each.created_at)}</td><td>${time(each.updated_at)}</td></tr>`)}</tbody>
    </table></div>`}
    ${cursor && html`<p><button onClick=${() => load(cursor)}>More</button></p>`}`;
}

function Session({ id, query }) {
  const [session, setSession] = useState(null);
  const [fault, setFault] = useState("");
  const asked = { tenant: query.tenant, subject: query.subject };
  const load = async (cursor) => {
    try {
      const page = await get(`sessions/${encodeURIComponent(id)}`, { ...asked, cursor });
      setSession((before) => (cursor ? { ...page, turns: [...before.turns, ...page.turns] } : page));
      setFault("");
    } catch (error) {
      setFault(error.message);
    }
  };
  const back = html`<p><a href=${link("sessions", [], asked)}>Sessions of ${asked.subject} of ${asked.tenant}</a></p>`;
  if (!may("read")) return html`<h1>Session</h1>${back}<p class="notice">Conversations need the permission to read contents.</p>`;
  return html`
    <h1>Session</h1>
    <p class="mono wrap">${id}</p>
    ${back}
    ${fault && html`<p class="notice bad" role="alert">${fault}</p>`}
    ${!session && html`<p><button class="primary" onClick=${() => load()}>Show the conversation</button> <span class="soft">This is recorded with your name.</span></p>`}
    ${session && html`
      ${session.cursor && html`<p><button onClick=${() => load(session.cursor)}>Earlier turns</button></p>`}
      <ol class="talk">${[...session.turns].reverse().map((turn) => html`<${TurnOf} key=${turn.id} turn=${turn} />`)}</ol>`}`;
}

function TurnOf({ turn }) {
  const cost = turn.cost ? money(turn.cost.amount, turn.cost.currency) : "";
  return html`<li class="turn">
    <p class="soft meta">${turn.number}. <span>${time(turn.created_at)}</span> <span>${turn.agent}</span>
      ${turn.status !== "completed" && html` <span class="tag warn">${turn.status}</span>`}
      <span>${count(turn.usage.prompt_tokens + turn.usage.completion_tokens)} tokens</span> ${cost && html`<span>${cost}</span>`}
      <a href=${link("turns", [turn.id])}>course</a></p>
    ${turn.messages.map((message, index) => html`<${Message} key=${index} message=${message} />`)}
    ${turn.problem && html`<p class="notice bad">${turn.problem.detail || turn.problem.title}</p>`}
  </li>`;
}

function Message({ message }) {
  if (message.role === "user") return html`<div class="said user"><span class="by">User</span><p class="wrap">${message.text}</p></div>`;
  if (message.role === "tool") {
    return html`<details class=${`tool ${message.failed ? "bad" : ""}`}><summary>${message.name} ${message.failed ? "failed" : "answered"}</summary><pre>${pretty(message.content)}</pre></details>`;
  }
  return html`
    ${message.text && html`<div class="said assistant"><span class="by">${message.by || "Assistant"}</span><p class="wrap">${message.text}</p></div>`}
    ${(message.tool_calls || []).map((call) => html`<details class="tool"><summary>calls ${call.name}</summary><pre>${pretty(call.arguments)}</pre></details>`)}`;
}
