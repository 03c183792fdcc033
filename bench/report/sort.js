// Makes the tables sortable. Everything is readable without it.
"use strict";

const keyOf = (row, column, numeric) => {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent.trim();
  return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
};

const compareKeys = (a, b, sign) => {
  // What was not measured comes last, whichever way.
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number") return sign * (a - b);
  return sign * a.localeCompare(b, "en", { numeric: true });
};

const sortTable = (table, header) => {
  const headers = [...table.tHead.rows[0].cells];
  const column = headers.indexOf(header);
  const descending = header.getAttribute("aria-sort") === "ascending";
  const numeric = header.classList.contains("n");
  headers.forEach((one) => one.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map((row) => [keyOf(row, column, numeric), row]);
  keyed.sort(([a], [b]) => compareKeys(a, b, descending ? -1 : 1));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
};

for (const table of document.querySelectorAll("table.data")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortTable(table, header));
    header.append(button);
  }
  table.classList.add("sortable");
}
