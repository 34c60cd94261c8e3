"use strict";

/* Each chart is a function of the page's state {part, threshold} and the colours of the theme. It returns what Plotly
   draws, a sentence for readers who cannot see it, and the numbers as a table. */

const PRINT_WIDTH = 320; // pixels: two charts side by side on A4 and Letter
const CHART_HEIGHT = 350;
const BIN_TABLE_DIGITS = 3;

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

/** The points of the slider and of the chosen threshold. */
function thresholdPoints(state, colours, x, y) {
  const at = (threshold) => figuresAt(state.part, threshold);
  const chosen = at(DATA.threshold),
    here = at(state.threshold);
  return [
    point(chosen[x], chosen[y], "chosen threshold", colours.green, "diamond"),
    point(here[x], here[y], "slider", colours.red, "circle"),
  ];
}

function boundLine(figure, orientation, colours) {
  if (!DATA.bound || DATA.bound.figure !== figure) return [];
  const across = [0, 1],
    along = [DATA.bound.value, DATA.bound.value];
  const [x, y] = orientation === "vertical" ? [along, across] : [across, along];
  return [
    line(x, y, `bound ${DATA.bound.sense === ">=" ? "≥" : "≤"} ${DATA.bound.value}`, colours.red, {
      dash: "dash",
      width: 1.5,
    }),
  ];
}

function foldLines(state, colours, x, y, more) {
  return state.part.folds
    .filter((fold) => fold.curves)
    .map((fold, i) =>
      line(fold.curves[x], fold.curves[y], "each fold", colours.blue, {
        width: 1,
        opacity: 0.45,
        legendgroup: "folds",
        showlegend: i === 0,
        hovertext: fold.name,
        ...more,
      }),
    );
}

/** Figures at eleven thresholds over the range of the slider. */
function thresholdTable(state) {
  const { low, high, digits } = DATA.scale;
  const rows = Array.from({ length: 11 }, (_, i) => {
    const threshold = Math.round(low + ((high - low) * i) / 10) / 10 ** digits;
    const at = figuresAt(state.part, threshold);
    return [
      thresholdText(threshold),
      ...["precision", "recall", "f1", "false_positive_rate"].map((n) => figureText(at[n])),
    ];
  });
  return [["Threshold", "Precision", "Recall", "F1", "False positive rate"], ...rows];
}

const ONE_CLASS = "Undefined: all these videos are of one class.";

function precisionRecallChart(state, colours) {
  const { part } = state;
  const layout = {
    xaxis: axis(colours, "recall: harmful videos found", UNIT_RANGE),
    yaxis: axis(colours, "precision: flags that are correct", UNIT_RANGE),
  };
  if (!part.curves) return { traces: [], layout, text: ONE_CLASS, table: thresholdTable(state) };
  const share = part.label.reduce((a, b) => a + b, 0) / part.label.length;
  const shape = { line: { shape: "hv" } };
  const steps = (trace) => ({ ...trace, line: { ...trace.line, ...shape.line } });
  return {
    layout,
    traces: [
      line([0, 1], [share, share], "guessing", colours.soft, { dash: "dot", width: 1.5 }),
      ...foldLines(state, colours, "recall", "precision").map(steps),
      steps(
        line(part.curves.recall, part.curves.precision, part.folds.length ? "all folds" : "this head", colours.blue, {
          width: 2.5,
        }),
      ),
      ...boundLine("precision", "horizontal", colours),
      ...boundLine("recall", "vertical", colours),
      ...thresholdPoints(state, colours, "recall", "precision"),
    ],
    text:
      `Precision against recall. Average precision ${figureText(part.average_precision)}; ` +
      `guessing gives ${figureText(share)}.`,
    table: thresholdTable(state),
  };
}

function rocChart(state, colours) {
  const { part } = state;
  const layout = {
    xaxis: axis(colours, "false positive rate: safe videos flagged", UNIT_RANGE),
    yaxis: axis(colours, "recall: harmful videos found", UNIT_RANGE),
  };
  if (!part.curves) return { traces: [], layout, text: ONE_CLASS, table: thresholdTable(state) };
  return {
    layout,
    traces: [
      line([0, 1], [0, 1], "guessing", colours.soft, { dash: "dot", width: 1.5 }),
      ...foldLines(state, colours, "false_positive_rate", "true_positive_rate"),
      line(
        part.curves.false_positive_rate,
        part.curves.true_positive_rate,
        part.folds.length ? "all folds" : "this head",
        colours.blue,
        { width: 2.5 },
      ),
      ...boundLine("false_positive_rate", "vertical", colours),
      ...boundLine("recall", "horizontal", colours),
      ...thresholdPoints(state, colours, "false_positive_rate", "recall"),
    ],
    text:
      `Harmful videos found against safe videos flagged. Area under the curve ${figureText(part.roc_auc)}; ` +
      "guessing gives 0.5.",
    table: thresholdTable(state),
  };
}

function reliabilityChart(state, colours) {
  const { before, after } = DATA.calibration;
  const most = Math.max(1, ...[...before.curve, ...after.curve].map((bin) => bin.count));
  const trace = (curve, name, colour, dash) => ({
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
  const rows = [
    ["original scores", before],
    ["calibrated", after],
  ].flatMap(([name, { curve }]) =>
    curve.map((bin) => [name, figureText(bin.score), figureText(bin.fraction), bin.count.toLocaleString("en")]),
  );
  return {
    layout: {
      xaxis: axis(colours, "mean score", UNIT_RANGE),
      yaxis: axis(colours, "share that is harmful", UNIT_RANGE),
    },
    traces: [
      line([0, 1], [0, 1], "perfect", colours.soft, { dash: "dot", width: 1.5 }),
      trace(before.curve, "original scores", colours.orange, "dash"),
      trace(after.curve, "calibrated", colours.blue, "solid"),
    ],
    text:
      "Share of harmful videos against mean score. Expected calibration error " +
      `${figureText(before.ece)} for original scores, ${figureText(after.ece)} for calibrated ones.`,
    table: [["Scores", "Mean score", "Share harmful", "Videos"], ...rows],
  };
}

function histogramChart(state, colours) {
  const { edges, harmful, safe } = state.part.histogram;
  const middles = harmful.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  const range = [edges[0], edges[edges.length - 1]];
  const bars = (counts, name, colour, yaxis) => ({
    type: "bar",
    x: middles,
    y: counts,
    name,
    yaxis,
    showlegend: false,
    marker: { color: colour },
    width: edges[1] - edges[0],
    hovertemplate: "%{y} videos<extra></extra>",
  });
  const upright = (threshold, colour, dash) => ({
    type: "line",
    x0: threshold,
    x1: threshold,
    y0: 0,
    y1: 1,
    yref: "paper",
    line: { color: colour, width: 2, dash },
  });
  const label = (text, y, colour) => ({
    text,
    x: 0,
    y,
    xref: "paper",
    yref: "paper",
    xanchor: "left",
    yanchor: "bottom",
    showarrow: false,
    font: { color: colour },
  });
  const side = (text, xanchor) => ({
    text,
    x: state.threshold,
    y: 1,
    xref: "x",
    yref: "paper",
    xanchor,
    yanchor: "bottom",
    showarrow: false,
    xshift: xanchor === "left" ? 4 : -4,
  });
  const asShare = (state.threshold - range[0]) / (range[1] - range[0]);
  const counts = { rangemode: "tozero", nticks: 4, tickformat: ",d" };
  const digits = Math.max(BIN_TABLE_DIGITS, DATA.scale.digits);
  const at = figuresAt(state.part, state.threshold);
  return {
    layout: {
      xaxis: axis(colours, "score", { range, anchor: "y2" }),
      yaxis: axis(colours, "harmful", { ...counts, domain: [0.53, 0.97] }),
      yaxis2: axis(colours, "safe", { ...counts, domain: [0, 0.44] }),
      bargap: 0.06,
      shapes: [upright(DATA.threshold, colours.green, "dot"), upright(state.threshold, colours.red, "solid")],
      annotations: [
        ...(asShare > 0.2 ? [side("passed ←", "right")] : []),
        ...(asShare < 0.8 ? [side("→ flagged", "left")] : []),
      ],
      margin: { t: 34, r: 12, b: 44, l: 52 },
    },
    traces: [bars(harmful, "harmful", colours.orange, "y"), bars(safe, "safe", colours.blue, "y2")],
    text:
      `How many harmful and safe videos have which score. At the threshold ${thresholdText(state.threshold)}, ` +
      `${at.false_negative} harmful videos are below it and ${at.false_positive} safe videos at or above it.`,
    table: [
      ["Score from", "below", "Harmful", "Safe"],
      ...harmful.map((count, i) => [
        edges[i].toFixed(digits),
        edges[i + 1].toFixed(digits),
        count.toLocaleString("en"),
        safe[i].toLocaleString("en"),
      ]),
    ],
  };
}

const CHARTS = {
  "precision-recall": precisionRecallChart,
  roc: rocChart,
  reliability: reliabilityChart,
  loss: lossChart,
  choice: choiceChart,
  histogram: histogramChart,
};

/** Charts that change with the slider. */
const LIVE_CHARTS = ["precision-recall", "roc", "histogram"];

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
    const { traces, layout, text, table } = CHARTS[name](state, colours);
    const wide = name === "histogram";
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
