"use strict";

/* The charts of an evaluation. `state` has the index of the chosen point of each slider. */

const HERE = "this set";
const BIN_DIGITS = 3;

/** Whether there is room for short labels only, as on a phone. */
function isNarrow() {
  return innerWidth <= 760;
}

/** What Plotly draws as an error bar from `low` to `high` around each value. */
function errorBar(values, intervals, colour) {
  const distance = (i, end, sign) => (intervals[i] ? Math.max(sign * (intervals[i][end] - values[i]), 0) : 0);
  return {
    type: "data",
    symmetric: false,
    array: values.map((_, i) => distance(i, 1, 1)),
    arrayminus: values.map((_, i) => distance(i, 0, -1)),
    color: colour,
    thickness: 2,
    width: 5,
  };
}

function intervalText(interval) {
  return interval ? `${figureText(interval[0])} to ${figureText(interval[1])}` : "–";
}

function signedText(value) {
  const size = figureText(Math.abs(value));
  return Number(size) === 0 ? size : (value < 0 ? "−" : "+") + size;
}

function fallChart(state, colours) {
  const rows = DATA.changes;
  const dots = (side, name, colour, symbol, shift) => {
    const shown = rows.map((row, i) => ({ row, y: i + shift })).filter(({ row }) => row[side] !== null);
    const values = shown.map(({ row }) => row[side]);
    return {
      type: "scatter",
      mode: "markers",
      x: values,
      y: shown.map(({ y }) => y),
      name,
      marker: { color: colour, symbol, size: 11 },
      error_x: errorBar(values, shown.map(({ row }) => row[`${side}_interval`]), colour),
      text: shown.map(({ row }) => `${row.name} ${intervalText(row[`${side}_interval`])}`),
      cliponaxis: false,
    };
  };
  const hasOwn = rows.some((row) => row.own !== null);
  const changed = rows.filter((row) => row.words === "lower").map((row) => row.name);
  return {
    wide: true,
    layout: {
      height: 110 + 46 * rows.length,
      xaxis: axis(colours, "figure, with its 95 % interval", UNIT_RANGE),
      yaxis: axis(colours, "", {
        range: [rows.length - 0.4, -0.6],
        tickvals: rows.map((_, i) => i),
        ticktext: rows.map((row) => row.name),
        zeroline: false,
      }),
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 13 } },
      margin: { t: 34, r: 12, b: 44, l: 52 },
    },
    traces: [
      ...(hasOwn ? [dots("own", DATA.own_title.toLowerCase(), colours.orange, "diamond", -0.14)] : []),
      dots("here", HERE, colours.blue, "circle", hasOwn ? 0.14 : 0),
    ],
    text:
      `Each figure on this set${hasOwn ? " beside the run's own figure" : ""}, with 95 % intervals. ` +
      (changed.length ? `Lower by more than chance: ${changed.join(", ")}.` : "None is lower by more than chance."),
    table: [
      ["Figure", DATA.own_title, "95 % interval", "This set", "95 % interval"],
      ...rows.map((row) => [
        row.name,
        figureText(row.own),
        intervalText(row.own_interval),
        figureText(row.here),
        intervalText(row.here_interval),
      ]),
    ],
  };
}

function causesChart(state, colours) {
  const { metric, own, here, steps } = DATA.causes;
  const bar = (name, from, to, colour) => ({
    type: "bar",
    x: [name],
    y: [Math.abs(to - from)],
    base: [Math.min(from, to)],
    marker: { color: colour },
    showlegend: false,
    hovertemplate: `${name}: ${from === 0 ? figureText(to) : signedText(to - from)}<extra></extra>`,
  });
  const names = [DATA.own_title.toLowerCase(), ...steps.map((step) => step.name), HERE];
  const ends = steps.map((step) => step.end);
  const intervals = steps.map((step) => step.interval?.map((change) => step.start + change));
  const tops = [own, ...steps.map((step, i) => Math.max(step.start, step.end, intervals[i]?.[1] ?? 0)), here];
  const texts = [figureText(own), ...steps.map((step) => signedText(step.change)), figureText(here)];
  const connectors = steps.map((step, i) =>
    line(names.slice(i, i + 2), [step.start, step.start], "", colours.soft, {
      width: 1,
      dash: "dot",
      showlegend: false,
      hoverinfo: "skip",
    }),
  );
  return {
    wide: true,
    layout: {
      xaxis: axis(colours, "", {
        type: "category",
        categoryarray: names,
        categoryorder: "array",
        showgrid: false,
        tickangle: 0,
        tickvals: names,
        ticktext: isNarrow() ? names.map((name) => name.replace(/[ -]/, "$&<br>")) : names,
        tickfont: { size: isNarrow() ? 11 : 13 },
      }),
      yaxis: axis(colours, metric, { range: [0, 1.08], tickvals: [0, 0.2, 0.4, 0.6, 0.8, 1] }),
      bargap: 0.35,
      annotations: texts.map((text, i) => ({
        x: names[i],
        y: Math.min(tops[i], 1),
        text,
        showarrow: false,
        yanchor: "bottom",
        yshift: 3,
        font: { size: 14 },
      })),
    },
    traces: [
      bar(names[0], 0, own, colours.orange),
      ...steps.map((step) => bar(step.name, step.start, step.end, step.change < 0 ? colours.red : colours.green)),
      bar(HERE, 0, here, colours.blue),
      ...connectors,
      {
        type: "scatter",
        mode: "markers",
        x: steps.map((step) => step.name),
        y: ends,
        marker: { color: colours.ink, size: 5 },
        error_y: errorBar(ends, intervals, colours.ink),
        showlegend: false,
        hoverinfo: "skip",
      },
    ],
    text:
      `From ${metric} ${figureText(own)} of the run to ${figureText(here)} on this set: ` +
      `${steps.map((step) => `${step.name} ${signedText(step.change)}`).join(", ")}.`,
    table: [
      ["Part", `Change of ${metric}`, "95 % interval"],
      ...steps.map((step) => [
        step.name,
        signedText(step.change),
        step.interval ? `${signedText(step.interval[0])} to ${signedText(step.interval[1])}` : "–",
      ]),
      ["all", signedText(here - own), ""],
    ],
  };
}

function upright(x, colour, dash) {
  return { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: colour, width: 1.5, dash } };
}

/** A mark for each point that was asked for on the command line; `x` and `y` are names of its fields. */
function askedFor(points, x, y, colours) {
  return {
    type: "scatter",
    mode: "markers",
    x: points.map((point) => point[x]),
    y: points.map((point) => point[y]),
    name: "asked for",
    marker: { color: colours.green, symbol: "diamond", size: 11 },
    visible: points.length > 0,
  };
}

function prevalenceChart(state, colours) {
  const { points, texts } = DATA.dials.prevalence;
  const x = points.map((point) => point.prevalence);
  const band = (end) => points.map((point) => point.precision_interval?.[end] ?? null);
  const edge = (end, more) => ({
    ...line(x, band(end), "95 % interval", colours.blue, { width: 0, hoverinfo: "skip" }),
    ...more,
  });
  const here = points[state.prevalence];
  const decades = [0.0001, 0.001, 0.01, 0.1, 0.5];
  const ticks = isNarrow() ? decades : [...decades, 0.002, 0.005, 0.02, 0.05, 0.2, 1];
  const isInside = DATA.share_here >= x[0] && DATA.share_here <= x[x.length - 1];
  return {
    wide: true,
    layout: {
      xaxis: axis(colours, "prevalence: share of harmful videos", {
        type: "log",
        range: [Math.log10(x[0]) - 0.04, Math.log10(x[x.length - 1]) + 0.04],
        tickvals: ticks,
        ticktext: ticks.map((tick) => `${+(100 * tick).toPrecision(2)} %`),
      }),
      yaxis: axis(colours, "precision", UNIT_RANGE),
      shapes: isInside ? [upright(DATA.share_here, colours.soft, "dot")] : [],
      annotations: isInside
        ? [{ text: HERE, x: Math.log10(DATA.share_here), y: 0.02, yref: "paper", xanchor: "right", showarrow: false }]
        : [],
    },
    traces: [
      edge(0, { showlegend: false }),
      edge(1, { fill: "tonexty", fillcolor: `${colours.blue}33` }),
      line(x, points.map((point) => point.precision), "precision", colours.blue, {
        width: 2.5,
        text: texts.map((text) => text.words),
        hovertemplate: "%{y:.3f} at %{x:.2%}<extra></extra>",
      }),
      askedFor(DATA.asked, "prevalence", "precision", colours),
      point(here.prevalence, here.precision, "slider", colours.red, "circle"),
    ],
    text: `Precision against prevalence. ${texts[state.prevalence].words}`,
    table: [
      ["Prevalence", "Precision", "95 % interval", "Alerts", "Misses"],
      ...texts.map((text) => [text.value, text.precision, text["precision-interval"] || "–", text.alerts, text.misses]),
    ],
  };
}

function budgetChart(state, colours) {
  const { points, texts } = DATA.dials.budget;
  const { num_videos: videos, num_harmful: harmful } = DATA;
  const here = points[state.budget];
  return {
    wide: true,
    layout: {
      xaxis: axis(colours, "videos reviewed, highest scores first", { rangemode: "tozero", tickformat: ",d" }),
      yaxis: axis(colours, "harmful videos found", { rangemode: "tozero", tickformat: ",d" }),
    },
    traces: [
      line([0, harmful, videos], [0, harmful, harmful], "perfect", colours.soft, { dash: "dash", width: 1.5 }),
      line([0, videos], [0, harmful], "guessing", colours.soft, { dash: "dot", width: 1.5 }),
      line(points.map((point) => point.reviewed), points.map((point) => point.found), "this head", colours.blue, {
        width: 2.5,
        hovertemplate: "%{y:,.0f} found in %{x:,d}<extra></extra>",
      }),
      askedFor(DATA.budgets, "reviewed", "found", colours),
      point(here.reviewed, here.found, "slider", colours.red, "circle"),
    ],
    text: `Harmful videos found against videos reviewed. ${texts[state.budget].words}`,
    table: [
      ["Reviewed", "Found", "Share of harmful", "Precision"],
      ...points.map((point, i) => [
        texts[i].value,
        point.found.toLocaleString("en", { maximumFractionDigits: 1 }),
        texts[i].share,
        texts[i].precision,
      ]),
    ],
  };
}

function calibrationChart(which, name) {
  return (state, colours) => {
    const { own, here } = DATA.reliability[which];
    return reliabilityCurves(
      [
        ...(own
          ? [{ name: DATA.own_title.toLowerCase(), reliability: own, colour: colours.orange, dash: "dash" }]
          : []),
        { name: HERE, reliability: here, colour: colours.blue, dash: "solid" },
      ],
      colours,
      `Share of harmful videos against mean score, for ${name}. Expected calibration error ` +
        `${figureText(here.ece)} on this set${own ? `, ${figureText(own.ece)} for the run's own videos` : ""}.`,
    );
  };
}

function scoresChart(state, colours) {
  const { edges, threshold, classes } = DATA.histogram;
  const middles = edges.slice(1).map((edge, i) => (edge + edges[i]) / 2);
  const height = 1 / classes.length;
  const axes = {},
    traces = [];
  classes.forEach(({ name, here, own }, i) => {
    const id = i ? i + 1 : "";
    const domain = [1 - (i + 1) * height + 0.02, 1 - i * height - 0.06];
    axes[`yaxis${id}`] = axis(colours, name, { domain, rangemode: "tozero", tickformat: ".0%", nticks: 4 });
    traces.push({
      type: "bar",
      x: middles,
      y: here,
      yaxis: `y${id}`,
      name: HERE,
      legendgroup: HERE,
      showlegend: i === 0,
      marker: { color: colours.blue },
      width: edges[1] - edges[0],
      hovertemplate: "%{y:.1%}<extra></extra>",
    });
    if (own) {
      traces.push(
        line(edges, [...own, own[own.length - 1]], DATA.own_title.toLowerCase(), colours.orange, {
          yaxis: `y${id}`,
          legendgroup: "own",
          showlegend: classes.findIndex((each) => each.own) === i,
          line: { color: colours.orange, width: 2.5, shape: "hv" },
          hoverinfo: "skip",
        }),
      );
    }
  });
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  return {
    wide: true,
    layout: {
      height: 90 + 150 * classes.length,
      ...axes,
      xaxis: axis(colours, "score", {
        range: [edges[0], edges[edges.length - 1]],
        anchor: `y${classes.length > 1 ? classes.length : ""}`,
      }),
      bargap: 0.06,
      shapes: [upright(threshold, colours.red, "solid")],
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 13 } },
      margin: { t: 34, r: 12, b: 44, l: 52 },
    },
    traces,
    text:
      `Which share of the ${classes.map((each) => each.name).join(", ")} videos has which score, on this set` +
      `${classes.some((each) => each.own) ? " and on the run's own videos" : ""}.`,
    table: [
      [
        "Score from",
        "below",
        ...classes.flatMap((each) => [
          `${each.name}, ${HERE}`,
          ...(each.own ? [`${each.name}, ${DATA.own_title.toLowerCase()}`] : []),
        ]),
      ],
      ...middles.map((_, i) => [
        edges[i].toFixed(BIN_DIGITS),
        edges[i + 1].toFixed(BIN_DIGITS),
        ...classes.flatMap((each) => [percent(each.here[i]), ...(each.own ? [percent(each.own[i])] : [])]),
      ]),
    ],
  };
}

const CHARTS = {
  fall: fallChart,
  causes: causesChart,
  prevalence: prevalenceChart,
  budget: budgetChart,
  "calibration-before": calibrationChart("before", "original scores"),
  "calibration-after": calibrationChart("after", "calibrated scores"),
  scores: scoresChart,
};
