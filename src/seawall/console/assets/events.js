// The events of a turn, exactly as they were streamed; replayed with the same timing.
import { html, useEffect, useRef, useState } from "./view.js";
import { get } from "./api.js";
import { duration, pretty } from "./format.js";

const SHOWN = 500;

function summary(event) {
  if (event.type === "text.delta" || event.type === "reasoning.delta") return event.text;
  if (event.type === "tool.called") return `${event.name}(${event.arguments})`;
  if (event.type === "tool.returned") return `${event.name}: ${event.content}`;
  const { type, ...rest } = event;
  return JSON.stringify(rest);
}

export function Events({ id, running, recorded }) {
  const [loaded, setLoaded] = useState(null);
  const [fault, setFault] = useState("");
  const show = async () => {
    try {
      setLoaded(await get(`turns/${encodeURIComponent(id)}/events`));
      setFault("");
    } catch (error) {
      setFault(error.message);
    }
  };
  return html`
    <section class="panel spaced">
      <h2>Events ${recorded > 0 && html`<small class="soft">${recorded} recorded</small>`}</h2>
      ${!loaded && html`<p><button onClick=${show} disabled=${running}>Show contents</button>
        <span class="soft"> ${running ? "when the turn has ended" : "This is recorded with your name."}</span></p>`}
      ${fault && html`<p class="notice bad" role="alert">${fault}</p>`}
      ${loaded && html`<${Replay} events=${loaded.events} />
        ${loaded.truncated && html`<p class="notice">Not all events were kept.</p>`}
        <div class="scroll" tabindex="0" role="region" aria-label="Events"><table class="events">
          <thead><tr><th class="number">At</th><th class="number id">Id</th><th>Event</th><th>Content</th></tr></thead>
          <tbody>${loaded.events.slice(0, SHOWN).map((each, index) => html`<tr key=${index}>
            <td class="number">${duration(each.at)}</td><td class="number id">${each.id}</td><td class="mono">${each.event.type}</td>
            <td><details><summary class="mono clip">${summary(each.event)}</summary><pre>${pretty(JSON.stringify(each.event))}</pre></details></td></tr>`)}</tbody>
        </table></div>
        ${loaded.events.length > SHOWN && html`<p class="soft">The first ${SHOWN} of ${loaded.events.length}.</p>`}`}
    </section>`;
}

// Plays the events in their own time.
function Replay({ events }) {
  const [text, setText] = useState("");
  const [marks, setMarks] = useState([]);
  const [playing, setPlaying] = useState(false);
  const [speed, setSpeed] = useState(1);
  const timers = useRef([]);
  const stop = () => {
    timers.current.forEach(clearTimeout);
    timers.current = [];
    setPlaying(false);
  };
  useEffect(() => stop, []);
  const timed = events.some((each) => each.at != null);
  if (!timed) return html`<p class="soft">These events come from the store, which has no times of them.</p>`;
  const play = () => {
    stop();
    setText("");
    setMarks([]);
    setPlaying(true);
    const last = events.length - 1;
    timers.current = events.map((each, index) => setTimeout(() => {
      if (each.event.type === "text.delta") setText((before) => before + each.event.text);
      else if (each.event.type !== "reasoning.delta") setMarks((before) => [...before, `${duration(each.at)} ${each.event.type}`]);
      if (index === last) setPlaying(false);
    }, each.at / speed));
  };
  return html`
    <div class="replay">
      <p><button onClick=${playing ? stop : play}>${playing ? "Stop" : "Replay"}</button>
        <label class="inline">Speed <select value=${speed} onChange=${(event) => setSpeed(Number(event.target.value))}>
          ${[1, 4, 10].map((each) => html`<option value=${each}>${each} x</option>`)}</select></label></p>
      ${(text || marks.length > 0) && html`<div class="played"><ol class="marks mono">${marks.map((each) => html`<li>${each}</li>`)}</ol><p class="said wrap">${text}</p></div>`}
    </div>`;
}
