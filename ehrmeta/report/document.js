// Sorts tables by a column and shows one picture of several. Without it all is there, unsorted.
"use strict";

function sortBy(table, column, button) {
  const body = table.tBodies[0];
  const heading = button.parentElement;
  const rising = heading.getAttribute("aria-sort") !== "ascending";
  const number = (cell) => parseFloat(cell.replace(/,/g, ""));
  const text = (row) => row.cells[column].textContent.trim();
  const compare = (left, right) => {
    const [a, b] = [number(text(left)), number(text(right))];
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1; // words come last
    const order = Number.isNaN(a) ? text(left).localeCompare(text(right)) : a - b;
    return rising ? order : -order;
  };
  body.append(...[...body.rows].sort(compare));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, column, button));
    heading.append(button);
  });
}

for (const picker of document.querySelectorAll("select.picker")) {
  const figures = [...picker.closest("section").querySelectorAll("figure")];
  const show = () => figures.forEach((figure, i) => { figure.hidden = i !== picker.selectedIndex; });
  picker.addEventListener("change", show);
  picker.closest("label").hidden = false;
  show();
}
