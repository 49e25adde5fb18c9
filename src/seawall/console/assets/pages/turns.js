// Recent turns: found by their fields, and one of them in full.
import { html, useEffect, useState } from "../view.js";
import { get, may } from "../api.js";
import { count, duration, money, time } from "../format.js";
import { link } from "../links.js";
import { Events } from "../events.js";
import { Waterfall } from "../waterfall.js";

const FIELDS = [["turn", "Turn"], ["session", "Session"], ["tenant", "Tenant"], ["subject", "Subject"], ["agent", "Agent"]];
const OUTCOMES = ["", "succeeded", "failed", "running", "completed", "paused", "person", "replayed", "cancelled"];

export default function Turns({ path, query }) {
  return path[0] ? html`<${Turn} key=${path[0]} id=${path[0]} />` : html`<${List} query=${query} />`;
}

export function Outcome({ row }) {
  const tone = row.outcome === "running" ? "warn" : row.succeeded ? "good" : "bad";
  return html`<span class=${`tag ${tone}`}>${row.outcome}</span>`;
}

function List({ query }) {
  const [found, setFound] = useState(null);
  const [fault, setFault] = useState("");
  const load = async (signal) => {
    try {
      const { minutes, ...fields } = query;
      const since = minutes ? Date.now() / 1000 - Number(minutes) * 60 : "";
      setFound(await get("turns", { ...fields, since }, signal));
      setFault("");
    } catch (error) {
      if (error.name !== "AbortError") setFault(error.message);
    }
  };
  useEffect(() => {
    const controller = new AbortController();
    load(controller.signal);
    return () => controller.abort();
  }, [JSON.stringify(query)]);
  const search = (event) => {
    event.preventDefault();
    const values = Object.fromEntries([...new FormData(event.target)].map(([k, v]) => [k, v.trim()]));
    const wanted = link("turns", [], values);
    if (wanted === window.location.hash) load();
    else window.location.hash = wanted;
  };
  return html`
    <h1>Turns</h1>
    <form class="search" onSubmit=${search} role="search" key=${JSON.stringify(query)}>
      ${FIELDS.map(([name, title]) => html`<label>${title}<input name=${name} defaultValue=${query[name] || ""} maxlength="256" size="12" /></label>`)}
      <label>Outcome<select name="outcome">${OUTCOMES.map((each) => html`<option value=${each} defaultSelected=${each === (query.outcome || "")}>${each || "any"}</option>`)}</select></label>
      <label>Time<select name="minutes">${[["", "any"], ["1", "last minute"], ["10", "last 10 minutes"], ["60", "last hour"]].map(([value, text]) => html`<option value=${value} defaultSelected=${value === (query.minutes || "")}>${text}</option>`)}</select></label>
      <label>Course<select name="course">${[["", "any"], ["recorded", "recorded"]].map(([value, text]) => html`<option value=${value} defaultSelected=${value === (query.course || "")}>${text}</option>`)}</select></label>
      <button class="primary">Find</button>
    </form>
    ${fault && html`<p class="notice bad" role="alert">${fault}</p>`}
    ${found && html`
      <p class="soft" role="status">${count(found.turns.length)} shown; the workers keep ${count(found.kept)}, newest first.${sampled(found.turns)}</p>
      ${found.turns.length === 0 ? html`<p class="notice">No turn matches. Older ones are in their <a href="#/sessions">sessions</a>.</p>` : html`
      <div class="scroll panel" tabindex="0" role="region" aria-label="Turns"><table class="rows">
        <thead><tr><th>Began</th><th>Outcome</th><th>Agent</th><th>Whose</th><th class="number">First text</th><th class="number">Whole turn</th><th class="number">Tokens</th><th class="number">Cost</th><th class="number">Tools</th><th>Turn</th></tr></thead>
        <tbody>${found.turns.map((row) => html`<tr key=${row.turn}>
          <td class="mono"><a href=${link("turns", [row.turn])} aria-label=${`Turn of ${time(row.began_at)}`}>${time(row.began_at)}</a></td><td><${Outcome} row=${row} /></td><td>${row.agent}</td>
          <td class="clipped" title=${whose(row)}>${whose(row)}</td>
          <td class="number">${duration(row.first_text)}</td><td class="number">${duration(row.milliseconds)}</td>
          <td class="number">${count(row.tokens)}</td><td class="number">${money(row.cost, row.currency)}</td><td class="number">${count(row.tool_calls)}</td>
          <td><span class="mono" title=${row.turn}>${"..." + row.turn.slice(-10)}</span>${row.course && html` <span class="tag good" title="Its course was recorded">course</span>`}</td></tr>`)}
        </tbody></table></div>`}`}`;
}

const whose = (row) => (row.subject ? `${row.subject} of ${row.tenant}` : "");

function sampled(turns) {
  const without = turns.filter((each) => !each.course).length;
  return without ? ` ${count(without)} have a report only: in a crowd, courses are recorded of a sample; choose Course to see those.` : "";
}

function Turn({ id }) {
  const [turn, setTurn] = useState(null);
  const [fault, setFault] = useState("");
  useEffect(() => {
    const controller = new AbortController();
    let timer;
    const load = async () => {
      try {
        const found = await get(`turns/${encodeURIComponent(id)}`, {}, controller.signal);
        setTurn(found);
        if (found.row.outcome === "running") timer = setTimeout(load, 1000);
      } catch (error) {
        if (error.name !== "AbortError") setFault(error.message);
      }
    };
    load();
    return () => { controller.abort(); clearTimeout(timer); };
  }, [id]);
  if (fault) return html`<h1>Turn</h1><p class="notice bad" role="alert">${fault}</p><p><a href="#/turns">All recent turns</a></p>`;
  if (!turn) return html`<p class="loading">Loading ...</p>`;
  const { row } = turn;
  return html`
    <h1>Turn <${Outcome} row=${row} /></h1>
    <p class="mono wrap">${row.turn}</p>
    <dl class="facts panel">
      <div><dt>Whose</dt><dd>${row.subject ? html`<a href=${link("sessions", [], { tenant: row.tenant, subject: row.subject })}>${row.subject} of ${row.tenant}</a>` : "-"}</dd></div>
      <div><dt>Session</dt><dd>${row.subject ? html`<a class="mono wrap" href=${link("sessions", [row.session], { tenant: row.tenant, subject: row.subject })}>${row.session}</a>` : html`<span class="mono">${row.session}</span>`}</dd></div>
      <div><dt>Agent</dt><dd>${row.agent || "-"}</dd></div>
      <div><dt>Intent</dt><dd>${turn.intent ? `${turn.intent}, by ${turn.intent_by}` : "none"}</dd></div>
      <div><dt>Began</dt><dd>${time(row.began_at)}</dd></div>
      <div><dt>First text</dt><dd>${duration(row.first_text)}</dd></div>
      <div><dt>Whole turn</dt><dd>${duration(row.milliseconds)}</dd></div>
      <div><dt>Tokens</dt><dd>${count(turn.prompt_tokens)} read, ${count(turn.completion_tokens)} written</dd></div>
      <div><dt>Cost</dt><dd>${money(row.cost, row.currency)}</dd></div>
    </dl>
    ${!row.course && html`<p class="notice">The course of this turn was not recorded, or is not kept any more: of a crowd it is a sample, up to 20 turns a second in each worker. Turns that are sent from <a href="#/talk">Talk</a>, or with the header <code>Seawall-Record: 1</code> by who may look here, are always recorded, and the last 100 of them kept.</p>`}
    <${Waterfall} turn=${turn} />
    ${turn.effects.length > 0 && html`<section class="panel spaced"><h2>Effects</h2><table>
      <thead><tr><th>Tool</th><th>Status</th><th>Decision</th></tr></thead>
      <tbody>${turn.effects.map(([tool, status, decision]) => html`<tr><td>${tool}</td><td>${status}</td><td>${decision}</td></tr>`)}</tbody></table></section>`}
    ${may("read")
      ? html`<${Events} id=${id} running=${row.outcome === "running"} recorded=${turn.recorded} />`
      : html`<p class="notice spaced">Its events need the permission to read contents.</p>`}`;
}
