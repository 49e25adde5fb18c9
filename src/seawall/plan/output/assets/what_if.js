/* Any two of the computed configurations, compared in a sentence and a table. */
const AS_ASKED = "as asked for";

/* Every state: what was asked for, then each input lower and higher. figures(name): null if the
   platform cannot run the service then. */
function states() {
  const now = {
    title: AS_ASKED,
    shared: answer.shared.monthly,
    figures: (name) => {
      const { monthly_cost: cost, met, first_token: first, error_share: errors } = answer.platforms[name];
      return { cost, met, first: first.p99.value, errors: errors.value || 0 };
    },
  };
  const changed = answer.sensitivity.flatMap((row) => [row.low, row.high]
    .filter((side) => side.value !== row.base)
    .map((side) => ({
      title: `${row.title}: ${side.value}, not ${row.base}`,
      shared: side.shared,
      figures: (name) => (name in side.costs ? { cost: side.costs[name], met: side.met[name],
        first: side.first_tokens[name], errors: side.errors[name] } : null),
    })));
  return [now, ...changed];
}

function sentence(one, other) {
  const [a, b] = [one.figures, other.figures];
  if (!a || !b) return `${(a ? other : one).name} cannot run the service.`;
  const gap = b.cost - a.cost;
  const near = Math.abs(gap) < 0.005 * Math.max(a.cost, b.cost);
  const ratio = Math.max(a.cost, b.cost) / Math.max(Math.min(a.cost, b.cost), 1e-9);
  let text = near ? `${one.name} and ${other.name} cost the same, ${money(a.cost)} a month`
    : `${one.name} costs ${money(Math.abs(gap))} a month ${gap > 0 ? "less" : "more"} than ${other.name} `
      + `(${money(a.cost)}, not ${money(b.cost)}: ${count(ratio)} times)`;
  const served = (side) => `${percent(1 - side.figures.errors)} of requests served`
    + (side.figures.first === null ? "" : `, first token within ${seconds(side.figures.first)} for 99 of 100`);
  if (a.met && b.met) text += ", and both meet the objective";
  else if (a.met !== b.met) {
    const [good, bad] = a.met ? [one, other] : [other, one];
    text += `, ${(gap > 0) === a.met || near ? "and" : "but"} only ${good.name} meets the objective: `
      + `${bad.name} has ${served(bad)}`;
  } else text += ", and neither meets the objective";
  const [mine, theirs] = [one.shared + a.cost, other.shared + b.cost];
  text += one.shared === other.shared
    ? `; model, store and traffic cost ${money(one.shared)} with either.`
    : `; the whole bill, with the model, is ${money(mine)} against ${money(theirs)}.`;
  return text;
}

function comparison(sides) {
  const rows = [
    ["platform, a month", (side) => money(side.figures.cost)],
    ["whole bill, a month", (side) => money(side.figures.cost + side.shared)],
    ["first token p99", (side) => seconds(side.figures.first)],
    ["not served", (side) => percent(side.figures.errors)],
    ["objective", (side) => (side.figures.met ? "met" : "missed")],
  ];
  const cell = (side, of) => make("td", { class: "n" }, side.figures ? of(side) : "-");
  return make("table", { class: "versus" },
    make("thead", {}, make("tr", {}, make("td"),
      ...sides.map((side) => make("th", { scope: "col", class: "n" }, side.name)))),
    make("tbody", {}, ...rows.map(([title, of]) => make("tr", {},
      make("th", { scope: "row" }, title), ...sides.map((side) => cell(side, of))))));
}

function whatIf() {
  const all = states();
  const chosen = ["a", "b"].map((side) => {
    const [what, change] = ["what", "if"].map((kind) => document.getElementById(`${kind}-${side}`));
    for (const name of NAMES) what.append(make("option", { value: name }, titleOf(name)));
    all.forEach((state, at) => change.append(make("option", { value: at }, state.title)));
    what.value = what.dataset.default;
    for (const select of [what, change]) select.addEventListener("change", show);
    return () => {
      const state = all[Number(change.value)];
      const title = titleOf(what.value);
      return { name: state.title === AS_ASKED ? title : `${title} (${state.title})`,
        figures: state.figures(what.value), shared: state.shared };
    };
  });
  function show() {
    const sides = chosen.map((side) => side());
    document.getElementById("verdict").textContent = sentence(...sides);
    document.getElementById("verdict-table").replaceChildren(comparison(sides));
  }
  show();
}
