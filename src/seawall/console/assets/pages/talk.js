// A chat with the agents of this server: tools and approvals as they happen, the events beside it.
import { html, useEffect, useRef, useState } from "../view.js";
import { me } from "../api.js";
import { Arguments, Decision } from "../decision.js";
import { Conversation } from "../conversation.js";
import { count, duration, pretty } from "../format.js";
import { link } from "../links.js";
import { render } from "../widget/markdown.js";
import { words } from "../widget/labels.js";

const SHOWN = 300;
const kept = new Conversation(); // goes on while another page is shown

export default function Talk() {
  const [, setChange] = useState(0);
  const scheduled = useRef(0);
  const end = useRef();
  const [files, setFiles] = useState([]);
  useEffect(() => {
    kept.changed = () => { // many events come between two frames
      scheduled.current ||= requestAnimationFrame(() => { scheduled.current = 0; setChange((n) => n + 1); });
    };
    return () => { kept.changed = () => {}; cancelAnimationFrame(scheduled.current); };
  }, []);
  const last = kept.turns.at(-1);
  const paused = last && last.state.status === "paused" && !last.state.waits.some((each) => each.waits === "person");
  useEffect(() => { end.current?.scrollIntoView({ block: "nearest" }); }, [kept.turns.length, last?.state.parts.length, last?.problem]);
  const send = (event) => {
    event.preventDefault();
    const field = event.target.elements.text;
    const text = field.value;
    if ((!text.trim() && !files.length) || kept.busy || paused) return;
    field.value = "";
    setFiles([]);
    kept.send(text, files);
    field.focus();
  };
  const key = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); event.target.form.requestSubmit(); }
  };
  return html`
    <h1>Talk</h1>
    <div class="talking">
      <section class="panel chat" aria-label="Conversation">
        <p class="choices">
          <label class="inline">Agent <select value=${kept.agent} onChange=${(event) => { kept.agent = event.target.value; }}>
            <option value="">by intent</option>
            ${(me.agents || []).map((each) => html`<option value=${each.name} title=${each.description}>${each.name}</option>`)}
          </select></label>
          <button onClick=${() => kept.clear()} disabled=${!kept.turns.length}>New conversation</button>
          ${kept.session && html`<a class="mono" href=${link("sessions", [kept.session], { tenant: me.tenant, subject: me.subject })}>session</a>`}
        </p>
        ${!kept.turns.length && html`<p class="soft">Write a message; what the agent does is shown as it happens.</p>`}
        ${kept.turns.map((turn) => html`<${Turn} key=${turn.request.key} turn=${turn} />`)}
        <div class="end" ref=${end}></div>
        <form class="compose" onSubmit=${send}>
          <label>Message<textarea name="text" rows="2" maxlength="16384" onKeyDown=${key} disabled=${paused}
            placeholder=${paused ? "Please decide above first." : ""}></textarea></label>
          <p class="choices">
            <button class="primary" disabled=${kept.busy || paused}>Send</button>
            ${last?.running && html`<button type="button" disabled=${last.stopping || !last.state.turn} onClick=${() => kept.stop(last)}>Stop</button>`}
            ${me.files && html`<label class="inline">Files <input type="file" multiple accept="image/*,application/pdf,text/plain"
              onChange=${(event) => setFiles([...event.target.files])} key=${kept.turns.length} /></label>`}
          </p>
        </form>
      </section>
      <${Events} turn=${last} />
    </div>`;
}

function Turn({ turn }) {
  const { state, problem } = turn;
  const final = ["effect-unknown", "turn-interrupted"].includes(problem?.code);
  return html`<div class="turn">
    <div class="said user"><span class="by">You</span><p class="wrap">${turn.request.text}</p>
      ${turn.files.map((name) => html`<p class="soft">${name}</p>`)}</div>
    ${state.parts.map((part, index) => html`<${Part} key=${index} part=${part} turn=${turn} />`)}
    ${status(turn) && html`<p class="soft" role="status">${status(turn)}</p>`}
    ${turn.note && turn.running && html`<p class="notice">${turn.note}</p>`}
    ${problem && html`<p class="notice bad" role="alert">${words(problem, {})} ${problem.detail && html`<span class="soft">${problem.code}: ${problem.detail}</span>`}</p>`}
    <p class="soft meta">
      ${state.agent && html`<span>${state.agent}</span>`}
      ${state.turn && html`<a href=${link("turns", [state.turn])}>course of this turn</a>`}
      ${problem && !final && html`<button onClick=${() => kept.retry(turn)}>Try again</button>`}
    </p>
  </div>`;
}

function status({ state, running, connection, stopping }) {
  if (stopping) return "Stopping ...";
  if (!running) return "";
  if (connection !== "open") return connection === "lost" ? "The connection was lost. Reconnecting ..." : "The server is busy. Trying again ...";
  if (state.queued) return `Number ${state.queued.position} in the queue for a ${state.queued.waits_for}, about ${Math.round(state.queued.seconds)} s`;
  return state.parts.at(-1)?.kind === "text" ? "" : "Working ...";
}

function Part({ part, turn }) {
  if (part.kind === "text") return html`<div class="said assistant"><span class="by">Assistant</span><${Rich} text=${part.text} /></div>`;
  if (part.kind === "reasoning") return html`<details class="tool"><summary>reasoning</summary><p class="wrap">${part.text}</p></details>`;
  if (part.kind === "tool") {
    const open = { running: "is called ...", paused: "waits" }[turn.state.status] ?? "was called";
    const state = part.done ? (part.failed ? "failed" : "answered") : open;
    return html`<details class=${`tool ${part.failed ? "bad" : ""}`}><summary>${part.name} ${state}</summary>
      <${Arguments} text=${part.arguments} />${part.done && html`<pre>${pretty(part.content)}</pre>`}</details>`;
  }
  if (part.done) return null; // the call itself is shown above
  const path = `/v1/turns/${encodeURIComponent(part.turn)}/approvals/${encodeURIComponent(part.id)}`;
  const own = !part.role;
  if (part.waits === "person") return html`<p class="notice">A person has this conversation now: see <a href="#/decide">Decide</a>.</p>`;
  const wait = { ...part, kind: part.waits, call: part.id, tool: part.name, decide: path, may_decide: own };
  return html`<div class="panel card"><h2>May the agent do this? ${part.name}</h2>
    <${Arguments} text=${part.arguments} /><${Decision} wait=${wait} decided=${() => turn.look?.()} /></div>`;
}

function Rich({ text }) {
  const place = useRef();
  useEffect(() => { render(place.current, text); }, [text]);
  return html`<div class="rich wrap" ref=${place}></div>`;
}

function Events({ turn }) {
  const events = turn?.state.events ?? [];
  const shown = events.slice(-SHOWN);
  const hidden = events.length - shown.length + (turn?.state.left ?? 0);
  return html`<section class="panel" aria-label="Events">
    <h2>Events <small class="soft">of the last turn, as they came</small></h2>
    ${!events.length && html`<p class="soft">None yet.</p>`}
    ${hidden > 0 && html`<p class="soft">${count(hidden)} before these.</p>`}
    ${shown.length > 0 && html`<div class="scroll raw" tabindex="0" role="region" aria-label="Events of the last turn"><table>
      <thead><tr><th class="number">At</th><th class="number">Id</th><th>Event</th></tr></thead>
      <tbody>${shown.map(({ at, position, event }, index) => html`<tr key=${hidden + index}>
        <td class="number">${duration(at)}</td><td class="number">${position}</td>
        <td class="mono wrap">${JSON.stringify(event)}</td></tr>`)}</tbody></table></div>`}
  </section>`;
}
