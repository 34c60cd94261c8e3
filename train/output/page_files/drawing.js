"use strict";

/* Draws charts. Each chart of a page is an entry of its `CHARTS`: a function of the page's state and the colours of the
   theme. It returns what Plotly draws, a sentence for readers who cannot see it, the numbers as a table, and whether it is
   `wide`. */

const PRINT_WIDTH = 320; // pixels: two charts side by side on A4 and Letter
const CHART_HEIGHT = 350;

function themeColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "soft", "line", "blue", "orange", "green", "red"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function axis(colours, title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 13 } },
    gridcolor: colours.line,
    linecolor: colours.line,
    zerolinecolor: colours.line,
    fixedrange: true,
    automargin: true,
    ...more,
  };
}

const UNIT_RANGE = { range: [-0.03, 1.03], tickvals: [0, 0.2, 0.4, 0.6, 0.8, 1] };

function line(x, y, name, colour, more = {}) {
  const { width = 2, dash = "solid", ...rest } = more;
  return { type: "scatter", mode: "lines", x, y, name, line: { color: colour, width, dash }, ...rest };
}

function point(x, y, name, colour, symbol) {
  const marker = { color: colour, symbol, size: 12, line: { color: "white", width: 1.5 } };
  return { type: "scatter", mode: "markers", x: [x], y: [y], name, marker, showlegend: false, cliponaxis: false };
}

/** A chart of reliability curves, each {name, reliability, colour, dash}, with `text` for readers who cannot see it. */
function reliabilityCurves(curves, colours, text) {
  const most = Math.max(1, ...curves.flatMap(({ reliability }) => reliability.curve.map((bin) => bin.count)));
  const trace = ({ name, reliability: { curve }, colour, dash }) => ({
    ...line(
      curve.map((bin) => bin.score),
      curve.map((bin) => bin.fraction),
      name,
      colour,
      { dash },
    ),
    mode: "lines+markers",
    cliponaxis: false,
    marker: { color: colour, size: curve.map((bin) => 5 + 11 * Math.sqrt(bin.count / most)), opacity: 1 },
    text: curve.map((bin) => `${bin.count} videos`),
  });
  const rows = curves.flatMap(({ name, reliability: { curve } }) =>
    curve.map((bin) => [name, figureText(bin.score), figureText(bin.fraction), bin.count.toLocaleString("en")]),
  );
  return {
    layout: {
      xaxis: axis(colours, "mean score", UNIT_RANGE),
      yaxis: axis(colours, "share that is harmful", UNIT_RANGE),
    },
    traces: [line([0, 1], [0, 1], "perfect", colours.soft, { dash: "dot", width: 1.5 }), ...curves.map(trace)],
    text,
    table: [["Scores", "Mean score", "Share harmful", "Videos"], ...rows],
  };
}

function fillTable(table, [header, ...rows]) {
  const row = (values, tag) => {
    const tr = document.createElement("tr");
    for (const value of values) {
      const cell = document.createElement(tag);
      if (tag === "th") cell.scope = "col";
      cell.textContent = value;
      tr.append(cell);
    }
    return tr;
  };
  const head = document.createElement("thead"),
    body = document.createElement("tbody");
  head.append(row(header, "th"));
  body.append(...rows.map((values) => row(values, "td")));
  table.replaceChildren(head, body);
}

/** Draw these charts for a state. For print they have a fixed width: scripts do not run when the page is laid out on
    paper. */
function drawCharts(names, state, { print = false } = {}) {
  const colours = themeColours();
  for (const name of names) {
    const element = document.getElementById(`chart-${name}`);
    if (!element) continue;
    const { traces, layout, text, table, wide } = CHARTS[name](state, colours);
    const size = print ? { autosize: false, width: wide ? 2 * PRINT_WIDTH : PRINT_WIDTH } : { autosize: true };
    Plotly.react(
      element,
      traces,
      {
        height: CHART_HEIGHT,
        margin: { t: 12, r: 12, b: 44, l: 52 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", size: 13, color: colours.ink },
        hoverlabel: { font: { family: "system-ui, sans-serif" } },
        legend: { orientation: "h", x: 0, y: -0.22, yanchor: "top", font: { size: 13 } },
        dragmode: false,
        hovermode: "closest",
        ...size,
        ...layout,
      },
      { displayModeBar: false, responsive: true },
    );
    element.setAttribute("aria-label", text);
    fillTable(document.getElementById(`table-${name}`), table);
  }
}

const waiting = new Set();

/** Draw these charts once per animation frame at most, however fast a slider moves. */
function drawSoon(names, state) {
  if (!waiting.size) {
    requestAnimationFrame(() => {
      drawCharts([...waiting], state);
      waiting.clear();
    });
  }
  for (const name of names) waiting.add(name);
}

/** Draw all charts, and draw them again for another colour theme and for print. */
function keepDrawn(state) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawSoon(Object.keys(CHARTS), state));

  addEventListener("beforeprint", () => {
    document.documentElement.dataset.paper = "";
    drawCharts(Object.keys(CHARTS), state, { print: true });
  });

  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.paper;
    drawCharts(Object.keys(CHARTS), state);
  });
  drawCharts(Object.keys(CHARTS), state);
}
