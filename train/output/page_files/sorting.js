"use strict";

/* Buttons in table headers sort the table by their column: by `data-value` where a cell has it, else by its text. */

function sortBy(table, column, descending) {
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => (descending ? -1 : 1) * compare(key(a), key(b)));
  body.append(...rows);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    sortBy(button.closest("table"), header.cellIndex, descending);
  });
}
