"use strict";

/* The threshold slider, the switch between parts, and everything that they change. */

const state = { name: DATA.headline, part: DATA.parts[DATA.headline], threshold: DATA.threshold };
const slider = document.getElementById("slider");
const back = document.getElementById("back");
const COUNTS = ["true_positive", "false_positive", "true_negative", "false_negative"];
const RATIOS = ["recall", "precision", "f1", "false_positive_rate"];

function inWords(at) {
  const harmful = at.true_positive + at.false_negative,
    safe = at.false_positive + at.true_negative;
  const text = (count) => count.toLocaleString("en");
  return (
    `finds ${text(at.true_positive)} of ${text(harmful)} harmful videos, ` +
    `flags ${text(at.false_positive)} of ${text(safe)} safe ones`
  );
}

function showBound(at) {
  if (!DATA.bound) return;
  const kept = keepsBound(at);
  const sense = DATA.bound.sense === ">=" ? "of at least" : "of at most";
  const wanted = `${FIGURE_NAMES[DATA.bound.figure]} ${sense} ${DATA.bound.value}`;
  const answer = { true: "is kept here", false: "is not kept here", null: "is undefined here" }[kept];
  const element = document.getElementById("bound");
  element.textContent = `${kept ? "✓" : "✗"} The bound, a ${wanted}, ${answer}.`;
  element.dataset.kept = String(kept);
}

/** Show below the slider which thresholds keep the bound. */
function showBoundStrip() {
  const strip = document.getElementById("bound-strip");
  if (!strip) return;
  const { low, high, digits } = DATA.scale;
  const numSteps = Math.min(high - low, 400);
  const stops = Array.from({ length: numSteps }, (_, i) => {
    const kept = keepsBound(figuresAt(state.part, (low + ((i + 0.5) * (high - low)) / numSteps) / 10 ** digits));
    const from = (100 * i) / numSteps,
      to = (100 * (i + 1)) / numSteps;
    return `${kept ? "var(--green)" : "transparent"} ${from}% ${to}%`;
  });
  strip.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
}

function showFigures() {
  const at = figuresAt(state.part, state.threshold),
    chosen = figuresAt(state.part, DATA.threshold);
  for (const name of COUNTS) setNumber(`here-${name}`, at[name], at[name].toLocaleString("en"));
  for (const name of RATIOS) {
    setNumber(`here-${name}`, at[name], figureText(at[name]));
    setNumber(`chosen-${name}`, chosen[name], figureText(chosen[name]));
  }
  const isChosen = state.threshold === DATA.threshold;
  setNumber("threshold", state.threshold, thresholdText(state.threshold));
  document.getElementById("is-chosen").textContent = isChosen ? "the chosen threshold" : "";
  document.getElementById("words").textContent = `Here it ${inWords(at)}.`;
  slider.setAttribute(
    "aria-valuetext",
    `${thresholdText(state.threshold)}${isChosen ? ", the chosen threshold" : ""}: ${inWords(at)}`,
  );
  back.disabled = isChosen;
  showBound(at);
}

function showPart() {
  for (const element of document.querySelectorAll("[data-part-name]")) element.textContent = PART_NAMES[state.name];
  showBoundStrip();
}

slider.addEventListener("input", () => {
  state.threshold = Number(slider.value) / 10 ** DATA.scale.digits;
  showFigures();
  drawSoon(LIVE_CHARTS, state);
});

back.addEventListener("click", () => {
  state.threshold = DATA.threshold;
  slider.value = String(Math.round(DATA.threshold * 10 ** DATA.scale.digits));
  showFigures();
  drawSoon(LIVE_CHARTS, state);
  slider.focus(); // the button is disabled now and cannot keep the keyboard focus
});

for (const radio of document.querySelectorAll('input[name="part"]')) {
  radio.addEventListener("change", () => {
    state.name = radio.value;
    state.part = DATA.parts[radio.value];
    showPart();
    showFigures();
    drawSoon(LIVE_CHARTS, state);
  });
}

// Browsers restore an earlier slider position on reload.
slider.value = String(Math.round(DATA.threshold * 10 ** DATA.scale.digits));
showPart();
showFigures();
keepDrawn(state);
