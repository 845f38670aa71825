/* The table of all runs: sorted by a heading, selected by a click. */

const LONG_WORD = /\S{24}/; // that a narrow table may break

function compare(a, b) {
  const [x, y] = [a, b].map((run) => (run[state.sort] === undefined ? null : run[state.sort]));
  if (x === y) return a.id - b.id;
  if (x === null) return 1;
  if (y === null) return -1;
  const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
  return state.up ? order : -order;
}

function buildHead() {
  const row = element("tr");
  for (const column of D.columns) {
    const button = element("button", { type: "button", textContent: column.title });
    const head = element("th", { scope: "col", title: column.help, className: column.text ? "" : "n" }, button);
    head.dataset.key = column.key;
    button.addEventListener("click", () => {
      state.up = state.sort === column.key ? !state.up : column.up;
      state.sort = column.key;
      fillTable();
      remember();
    });
    row.append(head);
  }
  $("table").tHead.replaceChildren(row);
}

function fillTable() {
  for (const head of $("table").tHead.rows[0].cells) {
    if (head.dataset.key === state.sort) head.setAttribute("aria-sort", state.up ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
  const rows = D.runs.filter((run) => visible.has(run.id)).sort(compare);
  $("table").tBodies[0].replaceChildren(...(rows.length ? rows.map(tableRow) : [emptyRow()]));
  $("count").textContent = `${rows.length} of ${D.runs.length} runs shown${filterWords()}` + (selected.size ? `, ${selected.size} selected` : "");
  $("deselect").hidden = !selected.size;
}

function emptyRow() {
  const button = element("button", { type: "button", textContent: "Show all" });
  button.addEventListener("click", showAll);
  return element("tr", { className: "empty" }, element("td", { colSpan: D.columns.length }, NO_MATCH + ". ", button));
}

function tableRow(run) {
  const row = element("tr", { className: selected.has(run.id) ? "selected" : "", tabIndex: 0, title: run.experiment });
  row.dataset.id = run.id;
  row.setAttribute("aria-selected", selected.has(run.id));
  for (const column of D.columns) {
    const cell = element("td", { textContent: run.cells[column.key], className: column.text ? "" : "n" });
    if (column.key === "status" && /^[a-z]+$/.test(run.status)) cell.classList.add(run.status);
    if (LONG_WORD.test(run.cells[column.key])) cell.classList.add("long");
    if (run.asides[column.key]) cell.title = run.asides[column.key];
    row.append(cell);
  }
  row.addEventListener("click", () => toggle(run.id));
  row.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), toggle(run.id)));
  return row;
}

function toggle(id) {
  if (!byId.has(id)) return;
  if (selected.delete(id)) {
    if (opened === id) closeDetails();
  } else {
    selected.add(id);
    chooseRun(id);
    openDetails(id);
  }
  refresh();
}
