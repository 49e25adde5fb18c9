/* Definitions shared by the parts of the report, and its start. */
const answer = JSON.parse(document.getElementById("answer").textContent);
const NAMES = Object.keys(answer.platforms);
const STYLES = { "lambda": "c2", "lambda-provisioned": "c6", "lambda-snapstart": "c4",
  "lambda-managed": "c5", "eks": "c1" };
const titleOf = (name) => answer.platforms[name].title;
const money = (value) => moneyIn(answer.currency, value);
const briefMoney = (value) =>
  (answer.currency === "USD" ? "$" : answer.currency + " ") + brief(value);
/* The time that the objective applies to. */
const WHEN = answer.traffic.spike_size ? "in the spike" : "at the busiest time";

const drawn = [spikeSection(), distributionCharts(), costChart()];
coldBars();
outcomeBars();
billBars();
tornado();
startPage(drawn);
