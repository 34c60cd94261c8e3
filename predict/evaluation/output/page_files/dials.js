"use strict";

/* The sliders. Each moves over points that Python computed, and shows the texts of its point. */

const state = Object.fromEntries(Object.entries(DATA.dials).map(([name, dial]) => [name, dial.start]));

function showPoint(name) {
  const texts = DATA.dials[name].texts[state[name]];
  for (const [key, text] of Object.entries(texts)) {
    const element = document.getElementById(`${name}-${key}`);
    if (element) element.textContent = text;
  }
  document.getElementById(`${name}-slider`).setAttribute("aria-valuetext", texts.words);
}

for (const name of Object.keys(DATA.dials)) {
  const slider = document.getElementById(`${name}-slider`);
  slider.value = String(state[name]); // browsers restore an earlier position on reload
  slider.addEventListener("input", () => {
    state[name] = Number(slider.value);
    showPoint(name);
    drawSoon([name], state);
  });
  showPoint(name);
}

keepDrawn(state);
