// A surge at this server: started, watched and stopped; its report when it has ended.
import { html, useEffect, useState } from "../view.js";
import { get, may, post } from "../api.js";
import { count, duration, time } from "../format.js";
import { ReportFrame } from "./reports.js";

const OVER = ["ended", "broken"];

export default function Surge() {
  const [known, setKnown] = useState(null);
  const [fault, setFault] = useState(""); // of what was asked for here
  const [lost, setLost] = useState(""); // why nothing new is known
  const [asked, setAsked] = useState(0);
  useEffect(() => {
    let current = true;
    let timer = 0;
    const load = async () => {
      let running = false;
      try {
        const answer = await get("surge");
        if (!current) return;
        setKnown((before) => carried(before, answer));
        setLost("");
        running = answer.surge && !OVER.includes(answer.surge.state);
      } catch (error) {
        if (current) setLost(error.message);
      }
      if (current) timer = setTimeout(load, running && !document.hidden ? 500 : 3000);
    };
    load();
    return () => { current = false; clearTimeout(timer); };
  }, [asked]);
  const take = async (path, body) => {
    setFault("");
    try {
      await post(path, body);
    } catch (error) {
      setFault(error.message);
    }
    setAsked((n) => n + 1);
  };
  if (!known) return html`<h1>Surge</h1>${lost ? html`<p class="notice bad" role="alert">${lost}</p>` : html`<p class="loading">Loading ...</p>`}`;
  const { surge, most, seconds } = known;
  if (!most) return html`<h1>Surge</h1><p class="notice">No surge may be started here: that needs the table <code>[console.surge]</code>.</p>`;
  const running = surge && !OVER.includes(surge.state);
  return html`
    <h1>Surge</h1>
    ${!running && (may("operate") ? html`<${Start} most=${most} seconds=${seconds} start=${(body) => take("surge", body)} />`
      : html`<p class="notice">Starting one needs the permission to operate.</p>`)}
    ${[fault, lost].map((each) => each && html`<p class="notice bad" role="alert">${each}</p>`)}
    ${surge && html`<${Shown} surge=${surge} running=${running} stop=${() => take(`surge/${surge.id}/stop`)} />`}`;
}

// A worker that is late in answering is shown as it was.
function carried(before, answer) {
  const { surge } = answer;
  if (!surge || surge.progress || before?.surge?.id !== surge.id) return answer;
  return { ...answer, surge: { ...surge, progress: before.surge.progress } };
}

function Start({ most, seconds, start }) {
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setBusy(true);
    await start({ people: Number(form.get("people")), seconds: Number(form.get("seconds")) });
    setBusy(false);
  };
  return html`
    <p class="soft">People who each send a turn to this server, from a driver beside it. Their turns are like any others.</p>
    <form class="search" onSubmit=${submit}>
      <label>People, at most ${count(most)}<input name="people" type="number" min="1" max=${most} step="1" required defaultValue=${Math.min(most, 1000)} /></label>
      <label>Arriving within, in seconds; 0: all at once<input name="seconds" type="number" min="0" max=${seconds} step="any" required defaultValue="0" /></label>
      <button class="primary" disabled=${busy}>Start</button>
    </form>`;
}

function Figure({ name, value }) {
  return html`<div class="figure"><dt>${name}</dt><dd>${value}</dd></div>`;
}

function Shown({ surge, running, stop }) {
  const { progress, figures } = surge;
  const now = progress ?? { seconds: 0, sent: 0, streaming: 0, completed: 0, failed: 0, refused: 0 };
  const first = figures ?? now;
  const ended = now.completed + now.failed + now.refused;
  const stopped = surge.state === "ended" && (!figures || figures.interrupted);
  const words = { running: progress ? "running" : "starting", stopping: "stopping", ended: stopped ? "stopped" : "ended", broken: "failed" }[surge.state];
  const tone = running || stopped ? "warn" : figures?.good ? "good" : "bad";
  return html`
    <section class="spaced" aria-labelledby="surge">
      <h2 id="surge">${count(surge.people)} people ${surge.seconds ? `within ${surge.seconds} s` : "at once"}
        ${" "}<span class=${`tag ${tone}`} role="status">${words}</span></h2>
      <p class="soft">Started by ${surge.by}, ${time(surge.began_at)}; ${running ? `${count(now.seconds)} s so far` : `it took ${duration(now.seconds * 1000)}`}. ${running && html`<a href="#/now">The server meanwhile</a>`}</p>
      <p class="choices bottom"><progress aria-label="Turns that have ended" max=${surge.people} value=${ended}></progress>
        ${running && may("operate") && html`<button class="danger" onClick=${stop} disabled=${surge.state === "stopping"}>Stop</button>`}</p>
      <dl class="figures">
        <${Figure} name="Sent" value=${count(now.sent)} />
        <${Figure} name="In flight" value=${count(running ? now.sent - ended : 0)} />
        <${Figure} name="Completed" value=${count(now.completed)} />
        <${Figure} name="Failed" value=${count(now.failed)} />
        <${Figure} name="Refused" value=${count(now.refused)} />
        <${Figure} name="First text p50" value=${duration(first.p50)} />
        <${Figure} name="First text p95" value=${duration(first.p95)} />
        <${Figure} name="First text p99" value=${duration(first.p99)} />
      </dl>
      ${surge.state === "broken" && html`<p class="notice bad">The driver failed, or the worker beside which it ran has ended; the log of the server says why.</p>`}
      ${figures && html`<p class=${`notice ${figures.good || figures.interrupted ? "" : "bad"}`} role="status">${figures.headline}</p>
        ${figures.warnings.map((each) => html`<p class="notice">The driver itself may have been the bottleneck: ${each}</p>`)}
        ${Object.entries(figures.errors).map(([error, turns]) => html`<p class="notice bad wrap">${count(turns)} x ${error}</p>`)}`}
      ${figures && !surge.report && html`<p class="notice bad">The report could not be written; the log of the server says why.</p>`}
      ${surge.report && html`<h2>Report</h2><${ReportFrame} name=${surge.report} />`}
    </section>`;
}
