"use strict";

/* The charts of training: losses, F1 and threshold over the epochs, one line for each head. */

function epochAxis(colours) {
  const last = Math.max(...DATA.heads.flatMap((head) => head.epochs.map((epoch) => epoch.number)));
  return axis(colours, "epoch", { dtick: Math.ceil(last / 10), tickformat: "d" });
}

/** One line for each head over its epochs, and a dot on the epoch that was kept. */
function headLines(figure, name, colours, colour, more = {}) {
  return DATA.heads.flatMap((head, i) => {
    const kept = head.epochs.filter((epoch) => epoch.number === head.best_epoch);
    const common = {
      opacity: DATA.heads.length > 1 ? 0.5 : 1,
      legendgroup: figure,
      hovertext: head.name,
    };
    const numbers = (epochs) => epochs.map((epoch) => epoch.number),
      values = (epochs) => epochs.map((epoch) => epoch[figure]);
    return [
      { ...line(numbers(head.epochs), values(head.epochs), name, colour, more), ...common, showlegend: i === 0 },
      {
        type: "scatter",
        mode: "markers",
        x: numbers(kept),
        y: values(kept),
        name,
        marker: { color: colour, size: 9 },
        ...common,
        showlegend: false,
      },
    ];
  });
}

function epochTable(columns) {
  const rows = DATA.heads.flatMap((head) =>
    head.epochs.map((epoch) => [
      ...(DATA.heads.length > 1 ? [head.name] : []),
      String(epoch.number) + (epoch.number === head.best_epoch ? " (kept)" : ""),
      ...columns.map(([figure]) => figureText(epoch[figure])),
    ]),
  );
  return [[...(DATA.heads.length > 1 ? ["Head"] : []), "Epoch", ...columns.map(([, name]) => name)], ...rows];
}

function lossChart(state, colours) {
  return {
    layout: { xaxis: epochAxis(colours), yaxis: axis(colours, "loss: lower is better", { rangemode: "tozero" }) },
    traces: [
      ...headLines("train_loss", "training", colours, colours.blue),
      ...headLines("val_loss", "validation", colours, colours.orange, { dash: "dash" }),
    ],
    text: "Loss on training and validation videos after each epoch; the dot is the epoch that was kept.",
    table: epochTable([
      ["train_loss", "Training loss"],
      ["val_loss", "Validation loss"],
    ]),
  };
}

function choiceChart(state, colours) {
  return {
    layout: { xaxis: epochAxis(colours), yaxis: axis(colours, "0 to 1", UNIT_RANGE) },
    traces: [
      ...headLines("f1", "F1 on validation", colours, colours.green),
      ...headLines("threshold", "chosen threshold", colours, colours.soft, { dash: "dash" }),
    ],
    text: "F1 and chosen threshold on validation after each epoch; the dot is the epoch that was kept.",
    table: epochTable([
      ["f1", "F1 on validation"],
      ["threshold", "Threshold"],
    ]),
  };
}
