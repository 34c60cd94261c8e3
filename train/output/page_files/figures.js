"use strict";

/** Figures of a part at a threshold, where prediction = score >= threshold. Undefined figures are null. */
function figuresAt(part, threshold) {
  let truePositive = 0,
    falsePositive = 0,
    trueNegative = 0,
    falseNegative = 0;
  for (let i = 0; i < part.score.length; i++) {
    const flagged = part.score[i] >= threshold;
    if (part.label[i] === 1) flagged ? truePositive++ : falseNegative++;
    else flagged ? falsePositive++ : trueNegative++;
  }
  const ratio = (a, b) => (b > 0 ? a / b : null);
  return {
    true_positive: truePositive,
    false_positive: falsePositive,
    true_negative: trueNegative,
    false_negative: falseNegative,
    precision: ratio(truePositive, truePositive + falsePositive),
    recall: ratio(truePositive, truePositive + falseNegative),
    f1: ratio(2 * truePositive, 2 * truePositive + falsePositive + falseNegative),
    false_positive_rate: ratio(falsePositive, falsePositive + trueNegative),
  };
}

/** Whether the policy's bound is kept; null if its figure is undefined or there is no bound. */
function keepsBound(figures) {
  if (!DATA.bound || figures[DATA.bound.figure] === null) return null;
  const value = figures[DATA.bound.figure];
  return DATA.bound.sense === ">=" ? value >= DATA.bound.value : value <= DATA.bound.value;
}

function thresholdText(threshold) {
  return threshold.toFixed(DATA.scale.digits);
}

const PART_NAMES = DATA.part_names;
const FIGURE_NAMES = { precision: "precision", recall: "recall", false_positive_rate: "false positive rate" };
