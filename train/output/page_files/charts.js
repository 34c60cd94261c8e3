"use strict";

/* The charts of the threshold and of the scores. `state` is {name, part, threshold}. */

const BIN_TABLE_DIGITS = 3;

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
  const share = part.count.harmful / (part.count.harmful + part.count.safe);
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
  return reliabilityCurves(
    [
      { name: "original scores", reliability: before, colour: colours.orange, dash: "dash" },
      { name: "calibrated", reliability: after, colour: colours.blue, dash: "solid" },
    ],
    colours,
    "Share of harmful videos against mean score. Expected calibration error " +
      `${figureText(before.ece)} for original scores, ${figureText(after.ece)} for calibrated ones.`,
  );
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
    wide: true,
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
