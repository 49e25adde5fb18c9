/* Distributions, costs, bars. Those that do not adapt to the width by themselves return a function
   that draws them again. */
const hiddenPlatforms = new Set();
const dashOf = (name) => DASHES[NAMES.indexOf(name) % DASHES.length];

function distributionCharts() {
  const together = [];
  for (const [key, id, title] of [
    ["first_token", "first-token-chart", "Time to first token"],
    ["latency", "latency-chart", "Time to the whole answer"],
  ]) {
    const lines = NAMES.filter((name) => answer.platforms[name][key].distribution.length)
      .map((name) => ({
        name: titleOf(name), style: STYLES[name], dash: dashOf(name),
        points: answer.platforms[name][key].distribution,
      }));
    if (!lines.length) continue;
    const times = lines.flatMap((line) => line.points.map((each) => each[0])).filter((x) => x > 0);
    const most = Math.max(...times);
    const least = Math.max(Math.min(...times), most / 1e4) * 0.95;
    const objective = answer.objective[`${key}_p99`];
    lineChart(document.getElementById(id), {
      title: `${title}: share of the served that took no longer`, height: 260,
      hidden: hiddenPlatforms, row: together,
      x: { label: "seconds, logarithmic", format: fine.format, say: seconds, log: true,
        domain: [least, most * 1.05] },
      y: { format: percent, domain: [0, 1.02] },
      marks: objective ? [{ at: objective, label: "objective, p99" }] : [],
      labels: 196,
      lines,
    });
  }
  const all = () => together.forEach((chart) => chart.draw());
  all();
  return all;
}

function costChart() {
  const { curve } = answer;
  const values = Object.values(curve.costs).flat().filter((value) => value > 0);
  const marks = [{ at: answer.traffic.requests_a_day, label: "today" }].concat(
    curve.break_even.map((each) => ({ at: each.requests_a_day, label: `break-even: ${brief(each.requests_a_day)} a day` })));
  const traffic = curve.requests_a_day;
  const chart = lineChart(document.getElementById("cost-chart"), {
    title: "Cost of a month against traffic; hollow dots: the objective is not met there",
    height: 340,
    x: { label: "requests a day, logarithmic; spikes grow alike", format: brief, log: true,
      say: (value) => `${count(value)} a day`, domain: [traffic[0], traffic[traffic.length - 1]] },
    y: { format: briefMoney, say: money, log: true,
      domain: [Math.min(...values) * 0.8, Math.max(...values) * 1.5] },
    marks: marks.sort((one, other) => one.at - other.at),
    lines: NAMES.map((name) => ({
      name: titleOf(name), style: STYLES[name], dash: dashOf(name),
      points: traffic.map((each, at) => [each, curve.costs[name][at]])
        .filter(([, cost]) => cost !== null),
      hollow: traffic.map((each, at) => [each, curve.costs[name][at]])
        .filter(([, cost], at) => cost !== null && !curve.met[name][at]),
    })),
  });
  chart.draw();
  return chart.draw;
}

function coldBars() {
  const rows = NAMES.map((name) => {
    const { value, half } = answer.platforms[name].cold_starts;
    return { label: titleOf(name), value: whole.format(value || 0) + (half >= 0.5 ? ` ± ${whole.format(half)}` : ""),
      parts: [{ style: STYLES[name], size: value || 0, title: `${titleOf(name)}: ${count(value)}` }] };
  });
  bars("cold-chart", `Cold starts ${WHEN}: environments, or pods`, rows,
    Math.max(...rows.map((row) => row.parts[0].size)));
}

function outcomeBars() {
  const kinds = [["good", "served"], ["bad", "refused"], ["c6", "timed_out"], ["c3", "failed"]];
  const words = { served: "served", refused: "refused", timed_out: "timed out", failed: "failed" };
  bars("outcome-chart", `Outcomes of requests that arrive ${WHEN}`, NAMES.map((name) => {
    const platform = answer.platforms[name];
    return {
      label: titleOf(name), value: `${percent(platform.served.value || 0)} served`,
      parts: kinds.map(([style, key]) => ({ style, size: platform[key].value || 0,
        title: `${words[key]}: ${percent(platform[key].value || 0)}` })),
    };
  }), 1, kinds.map(([style, key]) => [style, words[key]]));
}

function billBars() {
  const styles = ["c1", "c2", "c5", "c4", "c6", "c3"];
  const most = Math.max(...NAMES.map((name) => answer.platforms[name].monthly_cost));
  bars("bill-chart", "A month's bill", NAMES.map((name) => {
    const { items, monthly_cost: cost } = answer.platforms[name];
    const sorted = [...items].sort((one, other) => other.monthly - one.monthly);
    const said = sorted.slice(0, 3).filter((item) => item.monthly > 0)
      .map((item) => `${item.title} ${money(item.monthly)}`).join(", ");
    return {
      label: `${titleOf(name)}: ${money(cost)}`, value: said,
      parts: sorted.map((item, at) => ({ style: styles[Math.min(at, 5)], size: item.monthly,
        title: `${item.title}: ${money(item.monthly)}` })),
    };
  }), most);
}

function moneyBars() {
  const { money: whole, shared } = answer;
  const parts = [["c1", `platform, ${titleOf(answer.choice)}`, whole.platform],
    ...shared.items.map((item, at) => [["c2", "c5", "c4", "c6", "c3"][at % 5], item.title, item.monthly])];
  const said = [["platform", whole.platform], ["model", whole.model], ["store and traffic", whole.rest]];
  bars("money-chart", `The whole bill of a month, ${money(whole.whole)}`, [{
    label: said.map(([name, size]) => `${name} ${money(size)} (${percent(size / whole.whole)})`).join(", "),
    value: "",
    parts: parts.map(([style, name, size]) => ({ style, size, title: `${name}: ${money(size)}` })),
  }], whole.whole, parts.filter(([, , size]) => size > 0).map(([style, name]) => [style, name]));
}

function tornado() {
  const host = document.getElementById("tornado-chart");
  if (!host) return;
  const cases = [...answer.sensitivity]
    .sort((one, other) => other.changes_choice - one.changes_choice || other.swing - one.swing);
  const now = answer.platforms[answer.choice].monthly_cost;
  // Inputs that move the cost by less than a hundredth and leave the choice are not drawn.
  const matters = (each) => each.changes_choice || each.swing >= 0.01 * now;
  const shown = cases.filter(matters).slice(0, 14);
  const costs = shown.flatMap((each) => [each.low.costs[answer.choice], each.high.costs[answer.choice]])
    .filter((cost) => cost > 0).concat([now]);
  const [least, most] = [Math.min(...costs), Math.max(...costs)];
  const wide = most > 10 * least;
  const scale = (wide ? logarithmic : linear)(least * (wide ? 0.8 : 0.95), most * (wide ? 1.2 : 1.02), 0, 100);
  const list = make("div", { class: "bars tornado" });
  for (const each of shown) {
    const ends = [each.low, each.high].map((side) => side.costs[answer.choice] ?? now);
    const track = make("div", { class: "track" });
    [each.low, each.high].forEach((side, at) => {
      const [from, to] = [scale(now), scale(ends[at])].sort((one, other) => one - other);
      const bar = make("i", { class: at ? "b-c1" : "b-c2", title: `${side.value}: ${money(ends[at])} on ${titleOf(answer.choice)}` });
      bar.style.left = `${from}%`;
      bar.style.width = `${Math.max(to - from, 0)}%`;
      track.append(bar);
    });
    const line = make("span", { class: "now" });
    line.style.left = `${scale(now)}%`;
    track.append(line);
    const words = [each.low, each.high].map((side, at) => make("span", {},
      `${side.value}: ${money(ends[at])}`,
      side.choice === answer.choice ? null : make("b", {}, ` → ${titleOf(side.choice)}`)));
    list.append(make("div", {}, make("div", { class: "label" },
      make("span", {}, `${each.title}, now ${each.base}`), make("span", {}, words[0], " · ", words[1])), track));
  }
  const rest = cases.filter((each) => !shown.includes(each)).map((each) => each.title);
  host.replaceChildren(
    make("figcaption", {}, `What a month costs on ${titleOf(answer.choice)}, sized anew, when one input changes${wide ? " (logarithmic)" : ""}; the line is now, ${money(now)}`),
    make("div", { class: "keys" }, make("span", {}, make("i", { class: "b-c2" }), "lower value"),
      make("span", {}, make("i", { class: "b-c1" }), "higher value"),
      make("span", {}, "→ another platform would be chosen")),
    list, ...(rest.length ? [make("p", { class: "hint" },
      `These change next to nothing: ${rest.join(", ")}.`)] : []));
}
