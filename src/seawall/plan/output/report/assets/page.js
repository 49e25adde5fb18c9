/* Everything is drawn when the page is there, and anew when its width changes. */
document.documentElement.classList.add("scripts");
const drawn = [spikeSection(), distributionCharts(), costChart()];
coldBars();
outcomeBars();
billBars();
tornado();

const redraw = () => drawn.forEach((again) => again());
let width = document.body.clientWidth;
window.addEventListener("resize", () => {
  if (document.body.clientWidth !== width) { width = document.body.clientWidth; redraw(); }
});

/* Paper shows what is folded, and puts it back. */
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((each) => { each.open = true; });
});
window.addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
document.getElementById("print").addEventListener("click", () => window.print());

const theme = document.getElementById("theme");
theme.addEventListener("change", () => {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
});
