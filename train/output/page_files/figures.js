"use strict";

/**
 * Figures of a part at a threshold, where prediction = score >= threshold. Undefined figures are null.
 * The threshold is the chosen one, or a step of the slider; another one counts as the nearest step.
 */
function figuresAt(part, threshold) {
  const step = Math.round(threshold * 10 ** DATA.scale.digits) - DATA.scale.low;
  const flagged = ({ chosen, steps }) =>
    threshold === DATA.threshold ? chosen : steps[Math.min(Math.max(step, 0), steps.length - 1)];
  const truePositive = flagged(part.flagged.harmful),
    falsePositive = flagged(part.flagged.safe);
  const falseNegative = part.count.harmful - truePositive,
    trueNegative = part.count.safe - falsePositive;
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
