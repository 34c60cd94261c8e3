"use strict";

/** The numbers of the page, computed in Python. Text from outside is only in the HTML, where it is escaped. */
const DATA = JSON.parse(document.getElementById("data").textContent);

function figureText(value) {
  return value === null || value === undefined ? "–" : value.toFixed(DATA.digits);
}

/** Show a number: rounded as text, with all digits in `value` for programs. */
function setNumber(id, value, text) {
  const element = document.getElementById(id);
  element.textContent = text;
  element.value = value === null ? "" : String(value);
}
