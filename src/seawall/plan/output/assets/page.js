/* Every figure with the attribute data-chart, drawn: {title, x, y, series: [{name, kind, points}]}. */
function drawFigures() {
  return [...document.querySelectorAll("figure[data-chart]")].map((figure) => {
    const { title, x, y, series } = JSON.parse(figure.dataset.chart);
    const ends = series.map(({ points }) => (points.length ? points[points.length - 1][0] : 0));
    const chart = lineChart(figure, {
      title, height: 250, none: "none",
      x: { label: x, format: brief, say: (value) => `${count(value)} ${x.split(",")[0]}`,
        domain: [0, Math.max(...ends) || 1] },
      y: { format: brief, say: (value) => `${count(value)} ${y}` },
      lines: series.map(({ name, kind, points }, at) => ({ name, points, dots: kind === "dots",
        style: `c${(at % 6) + 1}`, dash: kind === "dots" ? "" : DASHES[at % DASHES.length] })),
    });
    chart.draw();
    return chart.draw;
  });
}

/* The page around the charts. drawn: functions that draw again, called when the width changes. */
function startPage(drawn) {
  let width = document.body.clientWidth;
  window.addEventListener("resize", () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    drawn.forEach((again) => again());
  });

  // Print what is folded, and fold it again.
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
}
