// What happens now: one stream of samples of all workers.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../view.js";
import { events, request } from "../api.js";
import { Chart } from "../chart.js";
import { count, duration, memory, share } from "../format.js";
import { Timeline } from "../timeline.js";

const COLORS = ["--bar-1", "--bar-2", "--bar-3", "--bar-4"];
const DASHES = [undefined, "long", "short"]; // of the fifth worker and on, of the ninth and on
const RETRY = [1000, 2000, 5000, 10000];

// Connects to the stream again and again until it is stopped.
async function follow(signal, take, state) {
  for (let failures = 0; !signal.aborted;) {
    try {
      const response = await request("now", { signal });
      state("live");
      for await (const frame of events(response)) {
        failures = 0;
        take(frame);
      }
    } catch (error) {
      if (signal.aborted) return;
      state(error.status === 401 ? "Your login has ended: reload the page." : error.message || "The connection was lost.");
      if (error.status === 401 || error.status === 403) return;
    }
    await new Promise((done) => setTimeout(done, RETRY[Math.min(failures, RETRY.length - 1)]));
    failures += 1;
  }
}

function Figure({ name, value, note }) {
  return html`<div class="figure"><dt>${name}</dt><dd>${value}${note && html` <small>${note}</small>`}</dd></div>`;
}

function State({ states }) {
  const entries = Object.entries(states || {});
  return entries.map(([name, workers]) => html`
    <span class=${`tag ${name === "closed" ? "good" : name === "open" ? "bad" : "warn"}`}>${name}${entries.length > 1 ? ` in ${workers}` : ""}</span> `);
}

export default function Now() {
  const timeline = useRef(new Timeline());
  const offset = useRef(0);
  const [, redraw] = useState(0);
  const [state, setState] = useState("connecting");
  const [budgets, setBudgets] = useState([]);
  useEffect(() => {
    const controller = new AbortController();
    const show = () => { if (!document.hidden) redraw((n) => n + 1); };
    document.addEventListener("visibilitychange", show, { signal: controller.signal });
    follow(controller.signal, (frame) => {
      if (frame.event === "budgets") return setBudgets(frame.data);
      if (frame.event === "history") timeline.current = new Timeline();
      timeline.current.add(frame.data);
      if (timeline.current.newest) offset.current = timeline.current.newest - Date.now() / 1000;
      return show();
    }, setState);
    return () => controller.abort();
  }, []);

  const line = timeline.current;
  useLayoutEffect(() => {
    if (!line.newest) return undefined;
    const drawn = requestAnimationFrame(() => { // by which a measurement knows when it is seen
      performance.clearMarks("seawall-drawn");
      performance.mark("seawall-drawn", { detail: line.newest });
    });
    return () => cancelAnimationFrame(drawn);
  }, [line.newest]);
  if (!line.newest) {
    return html`<h1>Now</h1><p class=${state === "connecting" || state === "live" ? "loading" : "notice bad"}>${state === "live" ? "Waiting for the first second ..." : state}</p>`;
  }
  const columns = line.columns();
  const names = line.names();
  const last = (name) => columns[name].at(-1);
  const chart = (title, unit, series, data) => html`
    <${Chart} title=${title} unit=${unit} series=${series} columns=${[columns.at, ...data]} offset=${offset.current} />`;
  const byWorker = names.map((name, index) => ({ label: `worker ${name}`, color: COLORS[index % COLORS.length], dash: DASHES[Math.floor(index / COLORS.length) % DASHES.length] }));
  return html`
    <h1>Now <span class=${`tag ${state === "live" ? "good" : "warn"}`} role="status">${state === "live" ? "live" : state}</span></h1>
    <dl class="figures">
      <${Figure} name="In flight" value=${count(last("in_flight"))} note=${`of ${count(last("limit"))}`} />
      <${Figure} name="Queued" value=${count(last("queued"))} />
      <${Figure} name="Begun a second" value=${count(last("begun"))} />
      <${Figure} name="Refused a second" value=${count(last("refused"))} />
      <${Figure} name="First text p50" value=${duration(last("p50"))} />
      <${Figure} name="First text p99" value=${duration(last("p99"))} />
      <${Figure} name="Processor" value=${share(last("cpu"))} note=${`${names.length} ${names.length === 1 ? "worker" : "workers"}`} />
      <${Figure} name="Memory" value=${memory(last("memory"))} />
    </dl>
    <div class="grid">
      ${chart("Turns", "turns", [{ label: "in flight", color: "--bar-1", fill: true }, { label: "queued", color: "--bar-3" }], [columns.in_flight, columns.queued])}
      ${chart("Turns a second", "1/s", [{ label: "begun", color: "--bar-1" }, { label: "completed", color: "--bar-4" }, { label: "failed", color: "--bad" }, { label: "refused", color: "--bar-3", dash: "long" }], [columns.begun, columns.completed, columns.failed, columns.refused])}
      ${chart("Time to the first text", "ms", [{ label: "p50", color: "--bar-1" }, { label: "p95", color: "--bar-2" }, { label: "p99", color: "--bar-3" }], [columns.p50, columns.p95, columns.p99])}
      ${chart("Processor", "%", byWorker, columns.cpuBy)}
      ${chart("Lag of the event loop", "ms", byWorker, columns.lagBy)}
      ${chart("Memory", "MiB", byWorker, columns.memoryBy)}
    </div>
    <section class="panel" aria-labelledby="upstreams">
      <h2 id="upstreams">Upstreams <small class="soft">calls of the last 30 s</small></h2>
      <div class="scroll" tabindex="0" role="region" aria-labelledby="upstreams"><table>
        <thead><tr><th>Name</th><th>Breaker</th><th class="number">In flight</th><th class="number">Limit</th><th class="number">Calls</th><th class="number">Failed</th></tr></thead>
        <tbody>${line.upstreams().map((each) => html`
          <tr><td>${each.name} <span class="soft">${each.kind}</span></td><td><${State} states=${each.states} /></td>
            <td class="number">${count(each.in_flight)}</td><td class="number">${count(each.limit)}</td>
            <td class="number">${count(each.calls)}</td>
            <td class=${`number ${each.failed ? "bad" : ""}`}>${each.calls ? share(each.failed / each.calls) : "-"}</td></tr>`)}
        </tbody></table></div>
    </section>
    <${Limits} quotas=${line.quotas()} budgets=${budgets} />`;
}

function Limits({ quotas, budgets }) {
  if (!quotas.length && !budgets.length) return null;
  return html`
    <div class="grid spaced">
      ${quotas.length > 0 && html`<section class="panel"><h2>Quotas <small class="soft">last 30 s</small></h2>
        <table><thead><tr><th>Name</th><th class="number">In flight</th><th class="number">Waiting</th><th class="number">Refused</th><th class="number">Throttled</th></tr></thead>
        <tbody>${quotas.map((each) => html`<tr><td>${each.name}</td><td class="number">${count(each.in_flight)}</td><td class="number">${count(each.waiting)}</td><td class="number">${count(each.refused)}</td><td class="number">${count(each.throttled)}</td></tr>`)}</tbody></table></section>`}
      ${budgets.length > 0 && html`<section class="panel"><h2>Budgets</h2>
        <table><thead><tr><th>Tenant</th><th>Budget</th><th class="number">Used</th><th class="number">Limit</th></tr></thead>
        <tbody>${budgets.map((each) => html`<tr><td>${each.tenant}</td><td>${each.budget.replaceAll("_", " ")}</td><td class=${`number ${each.left ? "" : "bad"}`}>${share(each.used / each.limit)}</td><td class="number">${each.limit.toLocaleString("en")}</td></tr>`)}</tbody></table></section>`}
    </div>`;
}
