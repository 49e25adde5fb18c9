// The clock of all charts of the page: those that are due together are drawn in one frame, and none
// while the page is hidden.
const SLACK = 25; // milliseconds that a chart may be drawn early, in a frame that there is anyway

const charts = new Map(); // what draws a chart -> when it is due
let timer = 0;
let frame = 0;

// Has `draw` called in a frame, and again after the milliseconds that it returns; returns what ends that.
export function animate(draw) {
  charts.set(draw, 0);
  request();
  return () => charts.delete(draw);
}

// Draws a chart in the next frame, whenever it was due.
export function hasten(draw) {
  if (!charts.has(draw)) return;
  charts.set(draw, 0);
  request();
}

function request() {
  clearTimeout(timer);
  if (!frame && !document.hidden) frame = requestAnimationFrame(run);
}

function run(now) {
  frame = 0;
  for (const [draw, due] of charts) if (due <= now + SLACK) charts.set(draw, now + draw(now));
  const next = Math.min(...charts.values());
  if (next < Infinity) timer = setTimeout(request, next - now);
}

document.addEventListener("visibilitychange", request);
