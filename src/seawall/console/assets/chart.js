// A chart of the last minutes. It is drawn anew when data come, and moves on in between.
import uPlot from "./vendor/uplot.js";
import { html, useEffect, useRef } from "./view.js";

const SHOWN = 180; // seconds
const FRAME = 66; // milliseconds between two frames
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(series, width, unit) {
  const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  return {
    width, height: 170, cursor: { show: false }, legend: { show: false },
    padding: [8, 26, 0, 0],
    scales: { x: { time: true, auto: false }, y: { range: (_, low, high) => [0, Math.max(high * 1.08, unit === "%" ? 10 : 1)] } },
    axes: [{ ...axis, space: 80, size: 28, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString("en-GB")) }, { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => (tick >= 10000 ? `${tick / 1000}k` : String(Math.round(tick * 100) / 100))) }],
    series: [{}, ...series.map((each) => ({
      label: each.label, stroke: color(each.color), width: 1.6, points: { show: false },
      fill: each.fill ? `${color(each.color)}22` : undefined, dash: each.dash, spanGaps: true,
    }))],
  };
}

// `columns`: seconds, then one column for each series. `offset`: seconds that the server's clock is
// ahead of this one's.
export function Chart({ title, unit, series, columns, offset }) {
  const place = useRef(null);
  const plot = useRef(null);
  const newest = useRef({ columns, offset });
  newest.current = { columns, offset };
  const labels = series.map((each) => each.label).join("|");

  useEffect(() => {
    const build = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(series, place.current.clientWidth, unit), newest.current.columns, place.current);
    };
    build();
    const resized = new ResizeObserver(() => {
      if (place.current) plot.current?.setSize({ width: place.current.clientWidth, height: 170 });
    });
    resized.observe(place.current);
    dark.addEventListener("change", build);
    let frame = 0;
    let drawn = 0;
    const move = (now) => {
      frame = requestAnimationFrame(move);
      if (now - drawn < (still.matches ? 1000 : FRAME) || document.hidden) return;
      drawn = now;
      const max = Date.now() / 1000 + newest.current.offset - 1.5;
      plot.current.setScale("x", { min: max - SHOWN, max });
    };
    frame = requestAnimationFrame(move);
    return () => {
      cancelAnimationFrame(frame);
      resized.disconnect();
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
      <ul class="legend">${series.map((each) => html`<li class=${`key key${each.color}`}>${each.label}</li>`)}</ul>
      <div ref=${place} class="plot" role="img" aria-label=${`${title}: ${last.join(", ")}`}></div>
    </section>`;
}
