/* Which run the confusions and the scores by class are of. */

function withDetails() {
  const first = D.plots.find((plot) => plot.variants);
  return first ? first.layout.meta.runs : [];
}

function chooseRun(id) {
  const chooser = $("run");
  if (!chooser || !withDetails().includes(id)) return;
  state.run = String(id);
  chooser.value = state.run;
}

function buildChooser() {
  const chooser = $("run");
  if (!chooser) return;
  const runs = withDetails();
  if (!runs.length) {
    chooser.parentElement.remove();
    return;
  }
  for (const id of runs) chooser.append(element("option", { value: String(id), textContent: D.labels[id] }));
  if (state.run === null || !runs.includes(Number(state.run))) state.run = String(runs[0]);
  chooser.value = state.run;
  chooser.addEventListener("change", () => {
    state.run = chooser.value;
    remember();
    markAll();
  });
}
