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

/* The names of a table's columns, for each cell: groups of columns and their own names. */
function columnNames(table) {
  const names = [];
  for (const row of table.tHead ? table.tHead.rows : []) {
    let at = 0;
    for (const cell of row.cells) {
      for (let each = 0; each < cell.colSpan; each += 1, at += 1) {
        names[at] = [...(names[at] || []), cell.textContent.trim()].filter(Boolean);
      }
    }
  }
  return names.map((words) => words.join(", "));
}

/* On a narrow screen each row is a block of its own, with the names of the columns in it. */
function labelCells() {
  for (const table of document.querySelectorAll(".wide > table")) {
    const names = columnNames(table);
    if (!names.length) continue;
    table.classList.add("stacked");
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, at) => { if (names[at]) cell.dataset.label = names[at]; });
    }
  }
}

/* The page around the charts. drawn: functions that draw again, called when the width changes. */
function startPage(drawn) {
  labelCells();
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
