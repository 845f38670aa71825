/* What there is to say of the run that was clicked on last, in a panel at the side. */

const MOST_EPOCHS = 200;
let opened = null;

function part(title, ...children) {
  const filled = children.filter((child) => child !== null);
  return filled.length ? [element("h3", { textContent: title }), ...filled] : [];
}

function textBlock(text) {
  return text ? element("pre", { textContent: text }) : null;
}

function copyable(text) {
  const box = element("div", { className: "command" }, element("pre", {}, element("code", { textContent: text })));
  const button = element("button", { type: "button", className: "copy", textContent: "Copy" });
  button.addEventListener("click", () => copyFrom(button));
  box.append(button);
  return box;
}

function keyTable(entries) {
  const rows = entries.map(([key, value]) => element("tr", {}, element("th", { scope: "row", textContent: key }), element("td", { textContent: value })));
  return rows.length ? element("table", {}, element("tbody", {}, ...rows)) : null;
}

/* The epochs of a run, from its learning curves. */
function historyTable(id) {
  const plot = plots.get("learning_curves");
  const curves = plot ? plot.data.filter((trace) => trace.meta.run === id) : [];
  if (!curves.length) return null;
  const epochs = curves[0].x.map((epoch, i) => [epoch, ...curves.map((curve) => (curve.y[i] == null ? "–" : Number(curve.y[i]).toPrecision(4)))]);
  const head = ["epoch", ...curves.map((curve) => curve.meta.of)].map((name) => element("th", { scope: "col", className: "n", textContent: name }));
  const rows = epochs.slice(-MOST_EPOCHS).map((cells) => element("tr", {}, ...cells.map((cell) => element("td", { className: "n", textContent: cell }))));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  return element("div", { className: "scroll" }, table);
}

function openDetails(id) {
  const run = byId.get(id);
  const known = D.details.runs[id];
  const config = known ? Object.entries(known.config) : [];
  const shared = known ? Object.entries(D.details.shared) : [];
  const close = element("button", { type: "button", id: "close-details", textContent: "✕", ariaLabel: "Close the details" });
  close.addEventListener("click", closeDetails);
  const measured = D.columns.filter((column) => run.cells[column.key] != null && run.cells[column.key] !== "–");
  const more = shared.length ? element("details", {}, element("summary", { textContent: `${shared.length} keys that all runs here share` }), keyTable(shared)) : null;
  const history = historyTable(id);
  const folded = history && element("details", {}, element("summary", { textContent: "Each epoch" }), history);
  $("details").replaceChildren(
    element("div", { className: "top" }, element("h2", { textContent: D.labels[id] }), close),
    element("p", { className: "note", textContent: run.experiment }),
    ...(known
      ? [
          ...part("Error", textBlock(known.error)),
          ...part("Folder", textBlock(known.folder)),
          ...part("Command", known.command ? copyable(known.command) : null, known.command ? element("p", { className: "note", textContent: D.details.about }) : null),
          ...part("Overrides", textBlock(known.overrides.join("\n"))),
        ]
      : [element("p", { className: "note", textContent: `Config, command and log are held for the first ${Object.keys(D.details.runs).length} runs; this one's are in its folder.` })]),
    ...part("Result", keyTable(measured.map((column) => [column.title, run.cells[column.key]]))),
    ...part("History", folded),
    ...part("Config", keyTable(config), more),
    ...(known ? part("End of its log", textBlock(known.log)) : []),
  );
  $("details").hidden = false;
  $("details").scrollTop = 0;
  opened = id;
}

function closeDetails() {
  $("details").hidden = true;
  opened = null;
}

addEventListener("keydown", (event) => event.key === "Escape" && closeDetails());
