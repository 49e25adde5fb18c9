// A chart of the last minutes. What is new comes in from the right, at most two pixels of the screen at
// a time; its height follows the values.
import uPlot from "./vendor/uplot.js";
import { animate, hasten } from "./clock.js";
import { html, useEffect, useLayoutEffect, useRef } from "./view.js";

const SHOWN = 180; // seconds
const BEHIND = 1.5; // seconds that the right edge is behind, so that what is new comes in from there
const SECOND = 1100; // milliseconds to the next sample, if it is a little late
const GROWS = 100; // milliseconds between two draws while the height changes
const STEPS = 3; // in which it changes
const MOVES = 2; // pixels at a time: every frame has a cost beside what it draws
const WIDTH = 1; // of lines, in pixels: wider ones take a browser without a GPU three times as long
const DASHES = { long: [6, 4], short: [2, 3] }; // pixels
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]; // of axes
const TOPS = [1, 2, 3, 5, 7.5, 10]; // heights, and ten times, a hundred times them
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// The least round number that leaves some space above a value.
function above(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * TOPS.find((top) => top * power >= value * 1.05 || top === 10);
}

// `height`: { top, wanted } of the scale, and in how many `steps` it gets there.
function options(series, width, unit, height) {
  const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  return {
    width, height: 170, cursor: { show: false }, legend: { show: false },
    padding: [8, 26, 0, 0],
    scales: { x: { time: true, auto: false }, y: { range: (_, low, high) => {
      const wanted = above(Math.max(high || 0, unit === "%" ? 9 : 0.9));
      if (!height.top) height.top = height.wanted = wanted;
      if (wanted !== height.wanted) Object.assign(height, { wanted, steps: still.matches ? 1 : STEPS });
      if (height.steps) height.top += (wanted - height.top) / height.steps--;
      return [0, height.top];
    } } },
    axes: [{ ...axis, space: 80, size: 28, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)) }, { ...axis, size: 58, ...(unit === "turns" && { incrs: WHOLE }), values: (_, ticks) => ticks.map((tick) => (tick >= 10000 ? `${tick / 1000}k` : String(Math.round(tick * 100) / 100))) }],
    series: [{}, ...series.map((each) => ({
      label: each.label, stroke: color(each.color), width: WIDTH, points: { show: false },
      fill: each.fill ? `${color(each.color)}22` : undefined, dash: DASHES[each.dash], spanGaps: true,
    }))],
  };
}

// `columns`: seconds, then one column for each series. `offset`: seconds that the server's clock is
// ahead of this one's.
export function Chart({ title, unit, series, columns, offset }) {
  const place = useRef(null);
  const plot = useRef(null);
  const drawn = useRef(null);
  const height = useRef({ top: 0, wanted: 0, steps: 0 });
  const newest = useRef({ columns, offset });
  newest.current = { columns, offset };
  const labels = series.map((each) => each.label).join("|");

  useEffect(() => {
    let visible = true;
    const draw = () => {
      if (!visible) return Infinity;
      const max = Date.now() / 1000 + newest.current.offset - BEHIND;
      plot.current.batch(() => { // draws at once
        plot.current.setData(newest.current.columns, false);
        plot.current.setScale("x", { min: max - SHOWN, max });
      });
      if (height.current.steps) return GROWS;
      const pixels = (plot.current.bbox.width / SHOWN) * (SECOND / 1000);
      return still.matches ? SECOND : SECOND / Math.ceil(pixels / MOVES);
    };
    const build = () => { // once more when the colours change
      plot.current?.destroy();
      plot.current = new uPlot(options(series, place.current.clientWidth, unit, height.current), newest.current.columns, place.current);
      hasten(draw);
    };
    build();
    const end = animate(draw);
    const resized = new ResizeObserver(() => {
      if (place.current) plot.current?.setSize({ width: place.current.clientWidth, height: 170 });
    });
    resized.observe(place.current);
    dark.addEventListener("change", build);
    const looked = new IntersectionObserver((entries) => {
      visible = entries.at(-1).isIntersecting;
      hasten(draw);
    });
    looked.observe(place.current);
    drawn.current = draw;
    return () => {
      end();
      resized.disconnect();
      looked.disconnect();
      dark.removeEventListener("change", build);
      plot.current.destroy();
      plot.current = null;
    };
  }, [labels, unit]);

  useLayoutEffect(() => { hasten(drawn.current); });

  const last = series.map((each, index) => {
    const value = columns[index + 1]?.at(-1);
    return `${each.label} ${value == null ? "none" : Math.round(value * 100) / 100} ${unit}`;
  });
  return html`
    <section class="panel chart">
      <h2>${title} <small class="soft">${unit}</small></h2>
      <ul class="legend">${series.map((each) => html`<li class=${`key key${each.color} ${each.dash ?? ""}`}>${each.label}</li>`)}</ul>
      <div ref=${place} class="plot" role="img" aria-label=${`${title}: ${last.join(", ")}`}></div>
    </section>`;
}
