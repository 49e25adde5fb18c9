// A chart of the last minutes. It moves on between two samples, half a pixel at a time, and what is
// new comes in from the right; its height follows the values. Only what is in view is drawn.
import uPlot from "./vendor/uplot.js";
import { html, useEffect, useRef } from "./view.js";

const SHOWN = 180; // seconds
const BEHIND = 1.5; // seconds that the right edge is behind, so that what is new comes in from there
const STEP = 0.5; // pixels
const FRAME = 66; // milliseconds between two draws at least
const DASHES = { long: [6, 4], short: [2, 3] }; // pixels
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]; // of axes
const EASE = 0.3; // of the way to its new height in each of them
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// `height`: { top, wanted } of the scale.
function options(series, width, unit, height) {
  const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  return {
    width, height: 170, cursor: { show: false }, legend: { show: false },
    padding: [8, 26, 0, 0],
    scales: { x: { time: true, auto: false }, y: { range: (_, low, high) => {
      height.wanted = Math.max((high || 0) * 1.08, unit === "%" ? 10 : 1);
      height.top ||= height.wanted;
      return [0, height.top];
    } } },
    axes: [{ ...axis, space: 80, size: 28, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString("en-GB")) }, { ...axis, size: 58, ...(unit === "turns" && { incrs: WHOLE }), values: (_, ticks) => ticks.map((tick) => (tick >= 10000 ? `${tick / 1000}k` : String(Math.round(tick * 100) / 100))) }],
    series: [{}, ...series.map((each) => ({
      label: each.label, stroke: color(each.color), width: 1.6, points: { show: false },
      fill: each.fill ? `${color(each.color)}22` : undefined, dash: DASHES[each.dash], spanGaps: true,
    }))],
  };
}

// `columns`: seconds, then one column for each series. `offset`: seconds that the server's clock is
// ahead of this one's.
export function Chart({ title, unit, series, columns, offset }) {
  const place = useRef(null);
  const plot = useRef(null);
  const height = useRef({ top: 0, wanted: 0 });
  const newest = useRef({ columns, offset });
  newest.current = { columns, offset };
  const labels = series.map((each) => each.label).join("|");

  useEffect(() => {
    const build = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(series, place.current.clientWidth, unit, height.current), newest.current.columns, place.current);
    };
    build();
    const resized = new ResizeObserver(() => {
      if (place.current) plot.current?.setSize({ width: place.current.clientWidth, height: 170 });
    });
    resized.observe(place.current);
    dark.addEventListener("change", build);
    let frame = 0;
    let drawn = 0;
    let visible = true;
    const looked = new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; });
    looked.observe(place.current);
    const move = (now) => {
      frame = requestAnimationFrame(move);
      const passed = now - drawn;
      const scale = height.current;
      const grows = Math.abs(scale.wanted - scale.top) > scale.wanted / 100;
      const step = (SHOWN / Math.max(1, plot.current.bbox.width)) * STEP * 1000;
      const pause = still.matches ? 1000 : grows ? FRAME : Math.max(FRAME, Math.min(1000, step));
      if (passed < pause || !visible || document.hidden) return;
      drawn = now;
      if (grows && !still.matches) scale.top += (scale.wanted - scale.top) * EASE;
      else scale.top = scale.wanted;
      const max = Date.now() / 1000 + newest.current.offset - BEHIND;
      plot.current.setScale("x", { min: max - SHOWN, max });
    };
    frame = requestAnimationFrame(move);
    return () => {
      cancelAnimationFrame(frame);
      resized.disconnect();
      looked.disconnect();
      dark.removeEventListener("change", build);
      plot.current.destroy();
      plot.current = null;
    };
  }, [labels, unit]);

  useEffect(() => { plot.current?.setData(columns, false); });

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
