// The page is complete without this: it only sorts and filters rows that are there.
(() => {
  const tables = [...document.querySelectorAll("table.board")];
  const valueOf = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const sortBy = (table, heading) => {
    const column = heading.cellIndex, kind = heading.dataset.sort;
    const first = kind === "down" ? "descending" : "ascending";
    const second = kind === "down" ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column, kind), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (kind === "text" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  for (const table of [...tables, ...document.querySelectorAll("table[data-sortable]")]) {
    table.classList.add("sortable");
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      const words = heading.querySelector("span");
      words.replaceWith(button);
      button.append(words);
      button.addEventListener("click", () => sortBy(table, heading));
    }
  }
  const form = document.querySelector("[data-filters]");
  if (!form) return;
  const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
  const filter = () => {
    const wanted = [...form.querySelectorAll("select")].filter((select) => select.value);
    let shown = 0;
    for (const row of rows) {
      row.hidden = wanted.some((select) => row.dataset[select.name] !== select.value);
      shown += !row.hidden;
    }
    for (const part of document.querySelectorAll("[data-table]")) {
      part.hidden = !part.querySelector("tbody tr:not([hidden])");
    }
    form.querySelector("[role=status]").textContent =
      `${shown} of ${rows.length} rows`;
  };
  form.hidden = false;
  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  // Most readers compare runs first, and attributes later.
  const attribute = form.querySelector("[name=attribute]");
  if (attribute) attribute.value = "all together";
  filter();
})();
