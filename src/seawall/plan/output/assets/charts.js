"use strict";

document.documentElement.classList.add("scripts");

/* Elements. Text is set as text, never as markup. */
function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const make = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/* Numbers for readers, by the rules of decision/numbers.py; `brief` is for axes only. */
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
function count(value) {
  if (value === null || value === undefined) return "-";
  return Math.abs(value) >= 100 ? whole.format(value) : fine.format(value);
}
function brief(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return fine.format(value / 1e6) + "M";
  if (size >= 1e4) return fine.format(value / 1e3) + "k";
  return count(value);
}
function seconds(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  if (size === 0 || (size >= 0.9995 && size < 600)) return count(value) + " s";
  return size < 1 ? count(value * 1e3) + " ms" : count(value / 60) + " min";
}
function percent(value) {
  if (value === null || value === undefined) return "-";
  const part = value * 100;
  if (part > 0 && part < 0.01) return "under 0.01 %";
  if (part >= 99.95 && part < 100) return "over 99.9 %";
  return count(part) + " %";
}
const cents = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
function moneyIn(currency, value) {
  const sign = currency === "USD" ? "$" : currency + " ";
  const size = Math.abs(value);
  if (size > 0 && size < 0.005) return `under ${sign}0.01`;
  return (value < 0 ? "-" : "") + sign + (size >= 10 ? whole : cents).format(size);
}

/* Scales: from a value to a coordinate, with their inverse and ticks. */
function linear(low, high, from, to) {
  const span = high - low || 1;
  const scale = (value) => from + ((value - low) / span) * (to - from);
  scale.invert = (at) => low + ((at - from) / (to - from)) * span;
  scale.ticks = (most) => {
    const rough = span / Math.max(most, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) {
      found.push(Number((at * step).toPrecision(12)));
    }
    return found;
  };
  return scale;
}
function logarithmic(low, high, from, to) {
  const inner = linear(Math.log10(low), Math.log10(high), from, to);
  const scale = (value) => inner(Math.log10(Math.max(value, low * 1e-6)));
  scale.invert = (at) => 10 ** inner.invert(at);
  scale.ticks = (most) => {
    const decades = Math.log10(high / low);
    const steps = decades * 3 <= most ? [1, 2, 5] : [1];
    const found = [];
    const first = Math.floor(Math.log10(low));
    const every = Math.max(1, Math.ceil(decades / Math.max(most, 1)));
    for (let power = first; power <= Math.log10(high) + 1e-9; power += steps[1] ? 1 : every) {
      for (const step of steps) {
        const value = Number((step * 10 ** power).toPrecision(6));
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    return found;
  };
  return scale;
}

/* A line chart: hover and arrow keys show values, dragging zooms, names in the legend switch lines.

options:
  title, height
  x, y      {label, format, say, log, domain, unit}; say: the format in the tooltip
  lines     {name, style, points, step, dash, dots, hollow}; points: [x, y or null], rising in x;
            step: width that a value covers; dots: draw points, not a line;
            hollow: points with a ring
  marks     {at, label}: vertical lines; levels: {at, label}: horizontal lines
  none      text where all values are zero
  least     height of the y axis at least
  hidden    a set of names that charts share which switch together
  group     charts with one cursor and one zoom
  row       charts with one height of the y axis */
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 4"];
let charts = 0;

function chartGroup(whole) {
  const group = { charts: [], whole, domain: whole };
  group.zoom = (low, high) => {
    const least = (whole[1] - whole[0]) / 1000;
    if (high - low < least) return;
    group.domain = [Math.max(whole[0], low), Math.min(whole[1], high)];
    group.charts.forEach((chart) => chart.draw());
  };
  group.point = (x, source) => group.charts.forEach((chart) => chart.point(x, chart === source));
  return group;
}

function lineChart(figure, options) {
  const number = (charts += 1);
  const hidden = options.hidden || new Set();
  const group = options.group || chartGroup(options.x.domain);
  const legend = make("div", { class: "legend", role: "group", "aria-label": "Lines shown" });
  const tip = make("div", { class: "tip", role: "status" });
  const frame = make("div", {
    class: "frame", tabindex: 0, role: "group",
    "aria-label": `${options.title}. Arrow keys show values, plus and minus zoom, zero shows all.`,
  });
  figure.replaceChildren(make("figcaption", {}, options.title), legend, frame);
  tip.hidden = true;
  const chart = { top, draw: redraw, point };
  group.charts.push(chart);
  if (options.row) options.row.push(chart);
  let layout = null;
  let current = null;
  let from = null;

  for (const line of options.lines) {
    const button = make("button", { type: "button" },
      draw("svg", { width: 22, height: 8, "aria-hidden": "true" },
        draw("line", { x1: 0, x2: 22, y1: 4, y2: 4, class: `line s-${line.style}`,
          "stroke-dasharray": line.dash })), line.name);
    button.setAttribute("aria-pressed", !hidden.has(line.name));
    button.addEventListener("click", () => {
      if (!hidden.delete(line.name)) hidden.add(line.name);
      (options.row || [chart]).forEach((each) => each.draw());
    });
    line.button = button;
    legend.append(button);
  }
  const shown = () => options.lines.filter((line) => !hidden.has(line.name));
  const domain = () => group.domain;

  function top(low, high) {
    let most = 0;
    for (const line of shown()) {
      for (const [x, y] of line.points) if (y !== null && x >= low && x <= high && y > most) most = y;
    }
    return most;
  }

  function redraw() {
    for (const line of options.lines) {
      line.button.setAttribute("aria-pressed", String(!hidden.has(line.name)));
    }
    const width = Math.max(frame.clientWidth, 260);
    const height = options.height || 200;
    const [low, high] = domain();
    let bounds = options.y.domain;
    if (!bounds) {
      const most = Math.max(...(options.row || [chart]).map((each) => each.top(low, high)));
      const levels = (options.levels || []).map((level) => level.at);
      const near = levels.filter((level) => level < 4 * most);
      bounds = [0, (Math.max(most, ...near, options.y.least || 0) || 1) * 1.06];
    }
    const bottom = height - 34;
    const yScale = (options.y.log ? logarithmic : linear)(bounds[0], bounds[1], bottom, 8);
    const yTicks = yScale.ticks(5);
    const left = 10 + 6.6 * Math.max(...yTicks.map((tick) => options.y.format(tick).length), 2);
    const right = width - 18;
    const xScale = (options.x.log ? logarithmic : linear)(low, high, left, right);
    layout = { left, right, bottom, xScale, yScale, width, height };
    const axis = draw("g", { class: "axis" });
    for (const tick of yTicks) {
      axis.append(
        draw("line", { x1: left, x2: right, y1: yScale(tick), y2: yScale(tick) }),
        draw("text", { x: left - 5, y: yScale(tick) + 4, "text-anchor": "end" },
          options.y.format(tick)));
    }
    for (const tick of ticksOf(xScale, low, high, Math.max(2, Math.floor((right - left) / 62)))) {
      const x = xScale(tick);
      axis.append(draw("line", { x1: x, x2: x, y1: 8, y2: bottom }),
        draw("text", { x, y: bottom + 14, "text-anchor": "middle" }, options.x.format(tick)));
    }
    axis.append(draw("text", { x: (left + right) / 2, y: height - 3, "text-anchor": "middle" },
      options.x.label));
    const clip = `inside-${number}`;
    const inside = draw("g", { "clip-path": `url(#${clip})` });
    for (const line of shown()) inside.append(...drawLine(line, xScale, yScale));
    if (options.none && top(low, high) === 0) {
      inside.append(draw("text", { x: (left + right) / 2, y: bottom / 2, "text-anchor": "middle",
        class: "none" }, options.none));
    }
    const cursor = draw("g", { class: "cursor" });
    current = draw("svg", {
      viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.title,
    },
    draw("defs", {}, draw("clipPath", { id: clip },
      draw("rect", { x: left, y: 0, width: right - left, height: bottom + 2 }))),
    axis, inside, marks(xScale, yScale, left, right, bottom, low, high), cursor);
    current.cursor = cursor;
    frame.replaceChildren(current, tip);
    tip.hidden = true;
  }

  /* Whole minutes, hours or days, where the axis has them. */
  function ticksOf(scale, low, high, most) {
    const unit = options.x.unit || 1;
    if (unit === 1) return scale.ticks(most);
    return linear(low / unit, high / unit, 0, 1).ticks(most).map((tick) => tick * unit);
  }

  function drawLine(line, xScale, yScale) {
    let path = "";
    let pen = false;
    for (const [x, y] of line.points) {
      if (y === null) { pen = false; continue; }
      const [px, py] = [xScale(x).toFixed(1), yScale(y).toFixed(1)];
      if (line.dots) {
        path += `M${px},${py}h0`;
      } else if (line.step) {
        const [begin, end] = [-0.5, 0.5].map((part) => xScale(x + part * line.step).toFixed(1));
        path += `${pen ? "L" : "M"}${begin},${py}L${end},${py}`;
      } else {
        path += `${pen ? "L" : "M"}${px},${py}`;
      }
      pen = true;
    }
    const drawn = [draw("path", { d: path, class: `${line.dots ? "dots" : "line"} s-${line.style}`,
      "stroke-dasharray": line.dash })];
    for (const point of line.hollow || []) {
      drawn.push(draw("circle", { cx: xScale(point[0]), cy: yScale(point[1]), r: 3.5,
        class: `hollow s-${line.style}` }));
    }
    return drawn;
  }

  function marks(xScale, yScale, left, right, bottom, low, high) {
    const drawn = [];
    const words = []; // above all lines
    let row = 0;
    for (const mark of options.marks || []) {
      if (mark.at < low || mark.at > high) continue;
      const x = xScale(mark.at);
      const after = x < (left + right) / 2;
      drawn.push(draw("line", { x1: x, x2: x, y1: 8, y2: bottom }));
      words.push(draw("text", { x: x + (after ? 5 : -5), y: (options.labels || 18) + 14 * row,
        "text-anchor": after ? "start" : "end" }, mark.label));
      row += 1;
    }
    for (const level of options.levels || []) {
      const y = yScale(level.at);
      if (y < 8 || y > bottom) continue;
      drawn.push(draw("line", { x1: left, x2: right, y1: y, y2: y }));
      words.push(draw("text", { x: right - 2, y: y - 4, "text-anchor": "end" }, level.label));
    }
    return draw("g", { class: "mark" }, ...drawn, ...words);
  }

  function nearest(line, x) {
    const points = line.points;
    let [low, high] = [0, points.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle; else high = middle;
    }
    return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
  }

  function point(x, mine) {
    if (!current) return;
    current.cursor.replaceChildren();
    tip.hidden = true;
    const lines = shown().filter((line) => line.points.length);
    if (x === null || !lines.length) return;
    chart.at = nearest(lines[0], x)[0];
    const at = layout.xScale(chart.at);
    current.cursor.append(draw("line", { x1: at, x2: at, y1: 8, y2: layout.bottom }));
    tip.replaceChildren(make("b", {}, options.x.say ? options.x.say(chart.at)
      : options.x.format(chart.at)));
    for (const line of lines) {
      const [px, py] = nearest(line, chart.at);
      if (py !== null) {
        current.cursor.append(draw("circle", { cx: layout.xScale(px), cy: layout.yScale(py), r: 3,
          class: `hollow s-${line.style}` }));
      }
      tip.append(make("span", {}, make("span", {}, line.name),
        make("span", {}, py === null ? "-" : (options.y.say || options.y.format)(py))));
    }
    if (!mine && !options.group) return;
    tip.hidden = false;
    const scale = frame.clientWidth / layout.width;
    const beside = at * scale + 12;
    tip.style.left = beside + tip.offsetWidth > frame.clientWidth
      ? `${Math.max(0, at * scale - 12 - tip.offsetWidth)}px` : `${beside}px`;
  }

  const where = (event) => {
    const box = current.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * layout.width;
    return Math.min(Math.max(x, layout.left), layout.right);
  };
  frame.addEventListener("pointermove", (event) => {
    const x = where(event);
    group.point(layout.xScale.invert(x), chart);
    if (from !== null) {
      current.cursor.append(draw("rect", { x: Math.min(from, x), y: 8,
        width: Math.abs(x - from), height: layout.bottom - 8 }));
    }
  });
  frame.addEventListener("pointerdown", (event) => { from = where(event); });
  window.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [one, other] = [from, where(event)].sort((a, b) => a - b);
    from = null;
    if (other - one > 8) group.zoom(layout.xScale.invert(one), layout.xScale.invert(other));
  });
  frame.addEventListener("pointercancel", () => { from = null; });
  frame.addEventListener("pointerleave", () => { if (from === null) group.point(null, chart); });
  frame.addEventListener("dblclick", () => group.zoom(...group.whole));
  frame.addEventListener("blur", () => group.point(null, chart));
  frame.addEventListener("keydown", (event) => {
    const [low, high] = domain();
    const points = (shown()[0] || { points: [] }).points.filter(([x]) => x >= low && x <= high);
    const here = points.findIndex(([x]) => x === chart.at);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && points.length) {
      const next = here < 0 ? 0 : Math.min(Math.max(here + step, 0), points.length - 1);
      group.point(points[next][0], chart);
    } else if (event.key === "+" || event.key === "-") {
      zoomBy(group, event.key === "+" ? 0.5 : 2, options.x.log);
    } else if (event.key === "0") {
      group.zoom(...group.whole);
    } else return;
    event.preventDefault();
  });
  return chart;
}

function zoomBy(group, factor, log) {
  const change = log ? [Math.log10, (value) => 10 ** value] : [(value) => value, (value) => value];
  const [low, high] = group.domain.map(change[0]);
  const middle = (low + high) / 2;
  const half = ((high - low) / 2) * factor;
  group.zoom(change[1](middle - half), change[1](middle + half));
}

/* Rows of bars: {label, value, parts: {style, size, title}}; sizes of `most`. */
function bars(id, title, rows, most, keys = []) {
  const list = make("div", { class: "bars" });
  for (const row of rows) {
    const track = make("div", { class: "track" });
    for (const part of row.parts) {
      const bar = make("i", { class: `b-${part.style}`, title: part.title });
      bar.style.width = `${(100 * part.size) / (most || 1)}%`;
      track.append(bar);
    }
    list.append(make("div", {},
      make("div", { class: "label" }, make("span", {}, row.label), make("span", {}, row.value)), track));
  }
  const legend = make("div", { class: "keys" }, ...keys.map(([style, name]) =>
    make("span", {}, make("i", { class: `b-${style}` }), name)));
  document.getElementById(id).replaceChildren(make("figcaption", {}, title), legend, list);
}
