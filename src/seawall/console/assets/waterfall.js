// A turn as a waterfall: its stages, calls of models and tools, over the time that it took.
import { html } from "./view.js";
import { count, duration } from "./format.js";

const TONES = [[/^(model|chat) /, "model"], [/^attempt /, "attempt"], [/^(execute_tool|[^ ]+ .*tool)/, "tool"], [/^(commit|journal)/, "store"]];
const tone = (name) => (TONES.find(([pattern]) => pattern.test(name)) || [null, "stage"])[1];

function note(span) {
  const has = span.attributes;
  const said = [];
  if (has["gen_ai.usage.input_tokens"] !== undefined) {
    said.push(`${count(has["gen_ai.usage.input_tokens"])} tokens read, ${count(has["gen_ai.usage.output_tokens"])} written`);
  }
  if (has["gen_ai.response.time_to_first_chunk"] !== undefined) {
    said.push(`first after ${duration(has["gen_ai.response.time_to_first_chunk"] * 1000)}`);
  }
  if (has["seawall.cost"] !== undefined) said.push(`costs ${has["seawall.cost"].toFixed(6)}`);
  if (span.error) said.push(span.error);
  return said.join("; ");
}

// Reports without a course have the lengths of stages only.
function stages(timings) {
  const since = { opening: 0, first_text: 0 };
  let at = 0;
  return Object.entries(timings).filter(([name]) => name !== "total").map(([name, took]) => {
    const began = name in since ? 0 : at;
    if (!(name in since) && !["intent", "session"].includes(name)) at += took;
    return { name, depth: 1, began, ended: began + took, error: null, attributes: {} };
  });
}

export function Waterfall({ turn }) {
  const recorded = turn.spans.length > 0;
  const spans = recorded ? turn.spans : stages(turn.timings);
  const whole = Math.max(turn.row.milliseconds, ...spans.map((each) => each.ended ?? 0), 0.01);
  const first = turn.row.first_text;
  const percent = (value) => `${Math.max(0, Math.min(100, (value / whole) * 100))}%`;
  return html`
    <section class="panel spaced" aria-labelledby="waterfall">
      <h2 id="waterfall">Course <small class="soft">${duration(whole)}${recorded ? "" : "; only the lengths of its stages are known"}</small></h2>
      <div class="scroll" tabindex="0" role="region" aria-labelledby="waterfall">
      <table class="waterfall">
        <thead><tr><th>Part</th><th class="track">Time${first != null && html` <span class="soft">(line: first text)</span>`}</th><th class="number">From</th><th class="number">Took</th></tr></thead>
        <tbody>${spans.map((span, index) => {
          const ended = span.ended ?? whole;
          return html`<tr key=${index}>
            <td class=${`part depth${Math.min(span.depth, 6)}`}>${span.name.replace(/^(invoke_agent|execute_tool) /, (found) => (found[0] === "i" ? "agent " : "tool "))}
              ${note(span) && html`<small class=${span.error ? "bad" : "soft"}>${note(span)}</small>`}</td>
            <td class="track"><div class="lane">
              <span class=${`span ${span.error ? "failed" : tone(span.name)}`} style=${{ left: percent(span.began), width: percent(ended - span.began) }}></span>
              ${first != null && html`<span class="mark" style=${{ left: percent(first) }}></span>`}</div></td>
            <td class="number">${duration(span.began)}</td>
            <td class="number">${span.ended == null ? "runs" : duration(ended - span.began)}</td></tr>`;
        })}</tbody>
      </table></div>
    </section>`;
}
