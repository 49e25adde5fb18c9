/* Definitions shared by the parts of the report, and its start. */
const answer = JSON.parse(document.getElementById("answer").textContent);
const NAMES = Object.keys(answer.platforms);
const STYLES = Object.fromEntries(NAMES.map((name, at) =>
  [name, ["c2", "c6", "c4", "c5", "c1", "c3"][at % 6]]));
const titleOf = (name) => (answer.platforms[name] ||
  answer.excluded.find((each) => each.name === name) || { title: "none can run it" }).title;
const money = (value) => moneyIn(answer.currency, value);
const briefMoney = (value) =>
  (answer.currency === "USD" ? "$" : answer.currency + " ") + brief(value);
/* The time that the objective applies to. */
const WHEN = answer.traffic.spike_size ? "in the spike" : "at the busiest time";

const drawn = [spikeSection(), distributionCharts(), costChart()];
coldBars();
outcomeBars();
billBars();
moneyBars();
whatIf();
tornado();
startPage(drawn);
