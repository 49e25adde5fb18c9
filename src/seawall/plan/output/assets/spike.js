/* The spike on two platforms side by side. */
const ROWS = [
  { title: "Requests in service and waiting",
    lines: [["in_service", "in service", "c1"], ["queued", "queued", "c2"], ["arrived", "arrived PER", "c3"]] },
  { title: "Refused, timed out and failed, PER", none: "none",
    lines: [["throttled", "attempts refused (429, 503)", "c2"], ["refused", "refused for good", "c4"], ["timed_out", "timed out", "c6"], ["failed", "failed", "c3"]] },
  { title: "Time to first token by time of arrival", format: seconds, objective: true,
    lines: [["first_token_mean", "mean", "c1"], ["first_token_max", "longest", "c2"]] },
  { title: "Cold starts PER, and environments or pods", apart: true,
    lines: [["cold_starts", "cold starts", "c2"], ["capacity", "environments or pods", "c1"], ["ready", "of them ready", "c5"]] },
  { title: "Load on other services",
    lines: [["model_calls", "calls of the model", "c1"], ["new_connections", "new connections PER", "c2"]] },
];

/* A unit of time that suits the span of the axis. */
function timeAxis(span) {
  const [unit, size] = span > 4 * 86400 ? ["days", 86400] : span > 10800 ? ["hours", 3600]
    : span > 600 ? ["minutes", 60] : ["seconds", 1];
  const format = (value) => count(value / size);
  return { unit, size, format, say: (value) => `${format(value)} ${unit}` };
}
const perBin = (width) => (width === 1 ? "a second" : `in ${count(timeAxis(width).size === 1
  ? width : width / timeAxis(width).size)} ${timeAxis(width).unit}`);

function wholeOf(names) {
  const ends = names.map((name) => {
    const { start, bin_seconds: width, values } = answer.platforms[name].series;
    return [start + width / 2, start + width * (values.arrived.length - 0.5)];
  });
  return [Math.min(...ends.map((end) => end[0])), Math.max(...ends.map((end) => end[1]))];
}

/* From a little before the spike until both platforms are nearly back at ordinary load. */
function spikeOf(names, whole) {
  if (!answer.traffic.spike_size) return whole;
  let last = 0;
  for (const name of names) {
    const { start, bin_seconds: width, values } = answer.platforms[name].series;
    const busy = values.in_service.map((value, at) => (value || 0) + (values.queued[at] || 0));
    const ordinary = Math.max(busy[0], 1);
    const most = Math.max(...busy);
    busy.forEach((value, at) => {
      if (value > ordinary + 0.05 * (most - ordinary)) last = Math.max(last, start + width * at);
    });
  }
  return [Math.max(whole[0], -0.1 * last - 2), Math.min(whole[1], Math.max(last * 1.1 + 2, 15))];
}

function spikeCharts(host, names) {
  const whole = wholeOf(names);
  const spike = spikeOf(names, whole);
  const group = chartGroup(whole);
  group.domain = spike;
  group.spike = spike;
  const axis = timeAxis(whole[1] - whole[0]);
  host.replaceChildren();
  const spikes = answer.traffic.spike_size ? [{ at: 0, label: "" }] : [];
  for (const row of ROWS) {
    const pair = make("div", { class: "pair" });
    const per = (words) => words.replace("PER", perBin(answer.platforms[names[0]].series.bin_seconds));
    host.append(make("h3", {}, per(row.title)), pair);
    const shared = [];
    const hidden = new Set();
    for (const name of names) {
      const figure = make("figure");
      pair.append(figure);
      const { start, bin_seconds: width, values } = answer.platforms[name].series;
      const format = row.format || brief;
      lineChart(figure, {
        title: titleOf(name), none: row.none, group, hidden, row: row.apart ? undefined : shared, height: 180,
        x: { label: `${axis.unit}${answer.traffic.spike_size ? " from the spike" : ""}`,
          format: axis.format, say: axis.say, unit: axis.size },
        y: { format, say: row.format || count, least: 1 },
        marks: spikes,
        levels: row.objective
          ? [{ at: answer.objective.first_token_p99, label: "objective, p99" }] : [],
        lines: row.lines.filter(([key]) => values[key]).map(([key, title, style], at) => ({
          name: per(title), style, dash: DASHES[at], step: row.format ? 0 : width,
          // Without arrivals there is no longest wait either.
          points: values[key].map((value, index) => [start + width * (index + 0.5),
            key === "first_token_max" && values.first_token_mean[index] === null ? null : value]),
        })),
      });
    }
  }
  group.charts.forEach((chart) => chart.draw());
  return group;
}

function spikeSection() {
  const host = document.getElementById("spike-charts");
  const selects = ["left", "right"].map((id) => document.getElementById(id));
  let group = null;
  for (const select of selects) {
    for (const name of NAMES) select.append(make("option", { value: name }, titleOf(name)));
    select.value = select.dataset.default;
    select.addEventListener("change", show);
  }
  function show() { group = spikeCharts(host, selects.map((select) => select.value)); }
  const on = (id, act) => document.getElementById(id).addEventListener("click", act);
  document.getElementById("zoom-spike").hidden = !answer.traffic.spike_size;
  on("zoom-spike", () => group.zoom(...group.spike));
  on("zoom-all", () => group.zoom(...group.whole));
  on("zoom-in", () => zoomBy(group, 0.5));
  on("zoom-out", () => zoomBy(group, 2));
  show();
  return () => group.charts.forEach((chart) => chart.draw());
}
