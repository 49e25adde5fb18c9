// What waits for a person: calls to decide about, effects to reconcile, conversations to answer.
import { html, useEffect, useRef, useState } from "../view.js";
import { get, may, me, post } from "../api.js";
import { Arguments, Decision, History, fault } from "../decision.js";
import { time } from "../format.js";
import { link } from "../links.js";

const REFRESH = 3000;
const PAGE = 100;
const MOST_EMPTY = 20; // pages of one list that have nothing that this person may see
const MOST_GONE = 100; // cards of what waits no more, of one list

export default function Decide() {
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState("");
  const [asked, setAsked] = useState(0);
  const [pages, setPages] = useState({ approvals: 1, effects: 1, handovers: 1 });
  useEffect(() => {
    let current = true;
    let timer = 0;
    const load = async () => {
      try {
        const [approvals, effects, handovers] = await Promise.all([
          read("approvals", pages), read("effects", pages), read("handovers", pages),
        ]);
        if (!current) return;
        setFound({ approvals, effects, handovers });
        setProblem("");
      } catch (error) {
        if (current) setProblem(error.message);
      }
      if (current) timer = setTimeout(load, document.hidden ? 5 * REFRESH : REFRESH);
    };
    load();
    return () => { current = false; clearTimeout(timer); };
  }, [asked, pages]);
  const more = (name) => () => setPages((before) => ({ ...before, [name]: before[name] + 1 }));
  const again = () => setTimeout(() => setAsked((count) => count + 1), 1500);
  if (!found) return html`<h1>Decide</h1>${problem ? html`<p class="notice bad" role="alert">${problem}</p>` : html`<p class="loading">Loading ...</p>`}`;
  const { approvals, effects, handovers } = found;
  const size = (list) => `${list.items.length}${list.more ? " or more" : ""}`;
  const counts = `Calls that wait: ${size(approvals)}. Effects to reconcile: ${size(effects)}. Conversations: ${size(handovers)}.`;
  return html`
    <h1>Decide</h1>
    <p role="status" class="soft">${counts}</p>
    ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
    ${!may("approve") && html`<p class="notice">Without the permission to approve, you see and decide about your own calls only.</p>`}
    <${Section} title="Calls that wait" list=${approvals} more=${more("approvals")} name=${(each) => `${each.turn} ${each.call} ${each.question?.number ?? ""}`} none="No call waits for a decision.">
      ${(wait) => html`<${Card} wait=${wait}><${Arguments} text=${wait.arguments} /><${Decision} wait=${wait} decided=${again} /><//>`}<//>
    <${Section} title="Effects to reconcile" list=${effects} more=${more("effects")} name=${(each) => each.effect} none="No effect has an unknown outcome.">
      ${(effect) => html`<${Card} wait=${effect}><${Arguments} text=${effect.arguments} /><${Resolution} effect=${effect} done=${again} /><//>`}<//>
    <${Section} title="Conversations handed over" list=${handovers} more=${more("handovers")} name=${(each) => each.turn} none="No conversation waits for a person.">
      ${(wait) => html`<${Card} wait=${wait} live><${Arguments} text=${wait.arguments} /><${Answer} wait=${wait} done=${again} /><//>`}<//>`;
}

// The first pages of a list, and whether there are more.
async function read(name, pages) {
  const items = [];
  let cursor = null;
  for (let filled = 0, asked = 0; filled < pages[name] && asked < MOST_EMPTY + filled; asked += 1) {
    const page = await get(`/v1/${name}`, { limit: PAGE, cursor });
    items.push(...page[name]);
    cursor = page.cursor;
    if (!cursor) break;
    if (page[name].length) filled += 1;
  }
  return { items, more: Boolean(cursor) };
}

// A list whose cards keep their state; what has gone stays until the next visit, marked as such.
function Section({ title, list, more, name, none, children }) {
  const { items } = list;
  const [shown, setShown] = useState([]); // { item, gone }
  const read = useRef([]);
  useEffect(() => {
    const before = read.current;
    read.current = items.map(name);
    setShown((known) => merged(known, list, before, name));
  }, [items]);
  return html`<section class="waiting"><h2>${title} ${items.length > 0 && html`<span class="tag">${items.length}${list.more ? "+" : ""}</span>`}</h2>
    ${shown.length === 0 && html`<p class="soft">${none}</p>`}
    <div class="cards">${shown.map(({ item, gone }) => html`<div key=${name(item)} class=${gone ? "gone" : ""}>
      ${children(item)}
      ${gone && html`<p class="soft">It does not wait any more.</p>`}</div>`)}</div>
    ${list.more && html`<p class="soft">These are the first ${items.length}. <button onClick=${more} aria-label=${`More: ${title}`}>More</button></p>`}
  </section>`;
}

// What is shown after a list was read. Its order stays, but what is new may come before the rest, so
// that others leave the first pages: one has gone if what came behind it is still there.
function merged(known, { items, more }, before, name) {
  const present = new Set(items.map(name));
  const passed = new Set(before.slice(0, before.findLastIndex((each) => present.has(each)) + 1));
  const shown = new Map(known.map(({ item, gone }) => [name(item), { item, gone: gone || !more || passed.has(name(item)) }]));
  for (const item of items) shown.set(name(item), { item, gone: false });
  let over = [...shown.values()].filter((each) => each.gone).length - MOST_GONE;
  return [...shown.values()].filter((each) => !each.gone || (over -= 1) < 0);
}

function Card({ wait, live, children }) {
  const id = `wait-${wait.turn}-${wait.call}`;
  return html`<article class="panel card" aria-labelledby=${id}>
    <h3 id=${id} class="wrap">${wait.tool}</h3>
    <p class="soft meta"><span>for <a href=${link("sessions", [wait.session], { tenant: me.tenant, subject: wait.subject })}>${wait.subject}</a></span>
      <span>agent ${wait.agent}</span> <span>since ${time(wait.created_at)}</span>
      ${wait.expires_at && html`<span>until ${time(wait.expires_at)}</span>`}
      <a href=${link("turns", [wait.turn])}>course</a></p>
    ${children}
    <${History} wait=${wait} live=${live} />
  </article>`;
}

function Resolution({ effect, done }) {
  const [said, setSaid] = useState({ text: "" });
  if (!effect.may_resolve || !may("operate")) return html`<p class="soft">It is reconciled by a person with the operator's role.</p>`;
  const save = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const outcome = form.get("outcome");
    const body = { outcome, note: form.get("note"), ...(outcome === "done" && { result: form.get("result") }) };
    try {
      await post(`/v1/effects/${encodeURIComponent(effect.effect)}/resolution`, body);
      setSaid({ text: "It is recorded." });
    } catch (error) {
      setSaid({ text: error.code === "not-found" ? fault({ code: "already-decided" }) : fault(error), bad: true, open: error.code === "session-busy" });
    }
    done();
  };
  const outcome = said.text && html`<p class=${`notice ${said.bad ? "bad" : ""}`} role=${said.bad ? "alert" : "status"}>${said.text}</p>`;
  if (said.text && !said.open) return outcome;
  return html`<form class="stack" onSubmit=${save}>
    <fieldset><legend>Has it happened?</legend>
      <label class="inline"><input type="radio" name="outcome" value="done" required /> yes, it is done</label>
      <label class="inline"><input type="radio" name="outcome" value="not-done" /> no, it is not done</label></fieldset>
    <label>Result for the model, if it is done<input name="result" maxlength="16384" /></label>
    <label>Note, kept in the record<input name="note" maxlength="2000" /></label>
    <p class="choices"><button class="primary">Record</button></p>
    ${outcome}
  </form>`;
}

function Answer({ wait, done }) {
  const [text, setText] = useState("");
  const [said, setSaid] = useState({ text: "" });
  const [key, setKey] = useState(newKey);
  const outcome = said.text && html`<p class=${`notice ${said.bad ? "bad" : ""}`} role=${said.bad ? "alert" : "status"}>${said.text}</p>`;
  if (!wait.may_answer || !may("operate")) return html`<p class="soft">It is answered by another person with the role ${wait.role}.</p>`;
  if (said.over) return outcome;
  const send = async (back) => {
    const body = { turn: wait.turn, text: text.trim(), ...(back && { return: true }) };
    try {
      await post(wait.messages, body, back ? {} : { "idempotency-key": key });
      setSaid({ text: back ? "The assistant continues." : "Sent.", over: back });
      setText("");
      setKey(newKey());
      if (back) done();
    } catch (error) {
      const over = ["already-decided", "turn-not-found"].includes(error.code);
      setSaid({ text: over ? "Another person has handed it back, or it is too late." : error.message, bad: true, over });
      if (over) done();
    }
  };
  return html`<div class="stack">
    <label>Message to the user; or, when handing back, what the assistant should know
      <textarea rows="3" maxlength="16384" value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label>
    <p class="choices"><button class="primary" disabled=${!text.trim()} onClick=${() => send(false)}>Send to the user</button>
      <button onClick=${() => send(true)}>Hand back to the assistant</button></p>
    ${outcome}
  </div>`;
}

function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (each) => each.toString(16).padStart(2, "0")).join("");
}
