"use strict";

const answer = JSON.parse(document.getElementById("answer").textContent);
const NAMES = Object.keys(answer.platforms);
const titleOf = (name) => answer.platforms[name].title;

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

/* Numbers for readers. */
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
  if (Math.abs(value) < 1 && value !== 0) return whole.format(value * 1e3) + " ms";
  return fine.format(value) + " s";
}
function money(value) {
  const sign = answer.currency === "USD" ? "$" : answer.currency + " ";
  return sign + (value >= 10 ? whole.format(value) : value.toFixed(2));
}
const briefMoney = (value) =>
  (answer.currency === "USD" ? "$" : answer.currency + " ") + brief(value);
/* What the time is that is judged. */
const WHEN = answer.traffic.spike_size ? "in the spike" : "at the busiest time";
const percent = (value) => fine.format(value * 100) + " %";

/* Scales: from a value to a place, with the way back and ticks. */
function linear(low, high, from, to) {
  const span = high - low || 1;
  const scale = (value) => from + ((value - low) / span) * (to - from);
  scale.back = (place) => low + ((place - from) / (to - from)) * span;
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
  scale.back = (place) => 10 ** inner.back(place);
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
