// A call that waits: its arguments, and the decision about it or the answer to what it asks.
import { html, useEffect, useMemo, useRef, useState } from "./view.js";
import { may, me, post, get } from "./api.js";
import { pretty, time } from "./format.js";
import { formFields } from "./widget/form.js";

// The arguments of a call, which are JSON in a string, as names and values.
export function Arguments({ text }) {
  let values = null;
  try { values = JSON.parse(text); } catch { /* shown as it is */ }
  if (!values || typeof values !== "object" || Array.isArray(values)) return html`<pre>${text}</pre>`;
  const entries = Object.entries(values);
  if (!entries.length) return html`<p class="soft">No arguments.</p>`;
  return html`<dl class="arguments">${entries.map(([name, value]) => html`
    <div><dt>${name}</dt><dd class="wrap">${typeof value === "string" ? value : JSON.stringify(value, null, 1)}</dd></div>`)}</dl>`;
}

// Words for what an attempt to decide has come to.
export function fault(error) {
  if (error.code === "already-decided" || error.code === "turn-not-found") {
    return "Another decision was first, or it is too late: this is decided.";
  }
  return error.message;
}

// wait: as in GET /v1/approvals. decided(): after a decision of this or of another page.
export function Decision({ wait, decided }) {
  const [busy, setBusy] = useState(false);
  const [said, setSaid] = useState({ text: "", bad: false });
  const [edited, setEdited] = useState(null);
  const [note, setNote] = useState("");
  const over = said.text && !said.open;
  const take = async (body) => {
    setBusy(true);
    try {
      const answer = await post(wait.decide, body);
      setSaid({ text: `Decided: ${answer.decision.verdict}.` });
      decided?.();
    } catch (error) {
      const open = !["already-decided", "turn-not-found"].includes(error.code);
      setSaid({ text: fault(error), bad: true, open });
      if (!open) decided?.();
    } finally {
      setBusy(false);
    }
  };
  const verdict = (decision, more = {}) => take({ decision, ...(note.trim() && { note: note.trim() }), ...more });
  const edit = () => {
    try {
      const values = JSON.parse(edited);
      verdict("edit", { arguments: values });
    } catch {
      setSaid({ text: "The arguments are not valid JSON.", bad: true, open: true });
    }
  };
  const outcome = said.text && html`<p class=${`notice ${said.bad ? "bad" : ""}`} role=${said.bad ? "alert" : "status"}>${said.text}</p>`;
  if (over) return outcome;
  if (wait.kind === "input") return html`<${Question} wait=${wait} take=${take} busy=${busy} />${outcome}`;
  if (!wait.may_decide) return html`<p class="soft">${wait.role ? `Decided by another person with the role ${wait.role}.` : "Decided by the user."}</p>`;
  return html`
    ${edited !== null && html`<label>Arguments, as JSON
      <textarea class="mono" rows="6" value=${edited} onInput=${(event) => setEdited(event.target.value)}></textarea></label>
      ${edited.includes("[redacted]") && html`<p class="soft">What is [redacted] is not known here: enter it anew.</p>`}`}
    <label>Note, kept in the record; of a rejection the model reads it
      <input value=${note} maxlength="2000" onInput=${(event) => setNote(event.target.value)} /></label>
    <p class="choices">
      ${edited === null
        ? html`<button class="primary" disabled=${busy} onClick=${() => verdict("approve")}>Approve</button>
          <button disabled=${busy} onClick=${() => setEdited(pretty(wait.arguments))}>Edit</button>`
        : html`<button class="primary" disabled=${busy} onClick=${edit}>Approve as edited</button>
          <button disabled=${busy} onClick=${() => setEdited(null)}>Keep as it was</button>`}
      <button class="danger" disabled=${busy} onClick=${() => verdict("reject")}>Reject</button>
    </p>
    ${outcome}`;
}

function Question({ wait, take, busy }) {
  const { source, message, schema, url, number } = wait.question;
  const place = useRef();
  const form = useMemo(() => (schema ? formFields(schema, `q-${wait.call}-${number}`) : null), [wait.call, number]);
  useEffect(() => { if (form) place.current.replaceChildren(form.element); }, [form]);
  const asks = html`<p><strong>${source}</strong> asks: <span class="wrap">${message}</span></p>`;
  if (!wait.may_decide) return html`${asks}<p class="soft">Answered by the user.</p>`;
  const accept = () => {
    const content = form ? form.values() : undefined;
    if (content !== null) take({ decision: "accept", question: number, ...(content && { content }) });
  };
  const safe = /^https?:\/\//.test(url || "");
  return html`
    ${asks}
    ${form ? html`<div ref=${place}></div>` : html`<p>${safe ? html`<a href=${url} target="_blank" rel="noopener noreferrer">${url}</a>` : url}</p>`}
    <p class="choices">
      <button class="primary" disabled=${busy} onClick=${accept}>${form ? "Send answer" : "I have done this"}</button>
      <button disabled=${busy} onClick=${() => take({ decision: "decline", question: number })}>Decline</button>
    </p>`;
}

// The newest turns of a user's session; each look at them is recorded.
export function History({ wait, live = false }) {
  const [turns, setTurns] = useState(null);
  const [problem, setProblem] = useState("");
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (!open) return undefined;
    let timer = 0;
    let current = true;
    const load = async () => {
      try {
        const path = `sessions/${encodeURIComponent(wait.session)}`;
        const page = await get(path, { tenant: me.tenant, subject: wait.subject, limit: 10 });
        if (!current) return;
        setTurns([...page.turns].reverse());
        setProblem("");
      } catch (error) {
        if (current) setProblem(error.message);
      }
      if (current && live) timer = setTimeout(load, document.hidden ? 15000 : 4000);
    };
    load();
    return () => { current = false; clearTimeout(timer); };
  }, [open]);
  if (!may("read")) return html`<p class="soft">The conversation needs the permission to read contents.</p>`;
  return html`<details class="history" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>Conversation <small class="soft">${open ? "" : "reading it is recorded with your name"}</small></summary>
    ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
    <div class="excerpt">${(turns || []).map((turn) => turn.messages.map((message) => message.role !== "tool" && message.text && html`
      <div class=${`said ${message.role}`}><span class="by">${message.role === "user" ? "User" : message.by || "Assistant"} <time>${time(turn.created_at)}</time></span>
        <p class="wrap">${message.text}</p></div>`))}</div>
  </details>`;
}
