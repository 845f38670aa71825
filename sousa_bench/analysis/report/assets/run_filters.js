/* Chips, a search and a floor, that choose the runs on the page. A click on a chip shows only its runs, another adds. */

function word(key, value) {
  if (value === null || value === undefined) return "none";
  if (key === "augmentation") return value ? "with" : "without";
  return String(value);
}

function buildFilters() {
  const box = $("filters");
  for (const filter of D.filters) {
    const chips = element("div", { className: "chips" });
    for (const name of new Set(filter.values.map((value) => word(filter.key, value)))) {
      const chip = element("button", { type: "button", textContent: name, title: "Show only these; another adds, again takes away" });
      Object.assign(chip.dataset, { key: filter.key, value: name });
      chip.addEventListener("click", () => {
        const chosen = new Set(state.on[filter.key] || []);
        if (!chosen.delete(name)) chosen.add(name);
        state.on[filter.key] = [...chosen];
        refresh();
      });
      chips.append(chip);
    }
    box.append(element("fieldset", {}, element("legend", { textContent: filter.title }), chips));
  }
  const search = element("input", { type: "search", id: "search", placeholder: "any text", value: state.text });
  search.addEventListener("input", () => ((state.text = search.value), refresh()));
  const floor = element("input", { type: "number", id: "floor", min: 0, max: 1, step: 0.01, value: state.min, placeholder: "0" });
  floor.addEventListener("input", () => ((state.min = floor.value), refresh()));
  box.append(
    element("label", { className: "field" }, element("span", { textContent: "Search" }), search),
    element("label", { className: "field" }, element("span", { textContent: `Test ${D.score} at least` }), floor),
  );
  $("reset").addEventListener("click", showAll);
  $("deselect").addEventListener("click", () => (selected.clear(), closeDetails(), refresh()));
}

function showAll() {
  Object.assign(state, { on: {}, text: "", min: "" });
  $("search").value = $("floor").value = "";
  refresh();
}

function markChips() {
  for (const chip of document.querySelectorAll("#filters .chips button")) {
    const chosen = state.on[chip.dataset.key] || [];
    chip.setAttribute("aria-pressed", chosen.includes(chip.dataset.value));
    chip.classList.toggle("out", chosen.length > 0 && !chosen.includes(chip.dataset.value));
  }
}

function filtered() {
  return visible.size < D.runs.length;
}

function partsCombinations() {
  return state.text !== "" || state.min !== "" || D.filters.some(({ key, repeats }) => repeats && (state.on[key] || []).length);
}

/* A run that the table doesn't hold can't be filtered, so it stands for nothing as soon as anything is. */
function isShown(id) {
  return byId.has(id) ? visible.has(id) : !filtered();
}

/* What is filtered by, for paper, on which there are no chips. */
function filterWords() {
  const said = D.filters.filter(({ key }) => (state.on[key] || []).length).map(({ key, title }) => `${title}: ${state.on[key].join(", ")}`);
  if (state.text) said.push(`“${state.text}”`);
  if (state.min !== "") said.push(`test ${D.score} at least ${state.min}`);
  return said.length ? ` (${said.join("; ")})` : "";
}

function passes(run) {
  for (const [key, chosen] of Object.entries(state.on)) if (chosen.length && !chosen.includes(word(key, run[key]))) return false;
  if (state.min !== "" && !(run.test_acc >= Number(state.min))) return false;
  if (!state.text) return true;
  const all = (D.labels[run.id] + " " + run.experiment + " " + run.status).toLowerCase();
  return state.text.toLowerCase().split(/\s+/).every((part) => all.includes(part));
}
