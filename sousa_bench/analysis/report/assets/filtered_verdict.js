/* The verdict on what the filters leave, from the tests over all: their family holds every comparison that is left. */

/* Runs that the page doesn't hold are chosen with those of their combination that it does, unless a filter may part them. */
function shownWhole(rows) {
  const held = rows.filter((id) => byId.has(id));
  if (!held.length || !filtered()) return !filtered();
  return held.every((id) => visible.has(id)) && (held.length === rows.length || !partsCombinations());
}

/* Which combinations of a cohort are shown, the leader of them, and who can't be told from it; numbers in meta. */
function standing(meta) {
  const shown = meta.combinations.flatMap((each, i) => (shownWhole(each.rows) ? [i] : []));
  const leader = shown.reduce((best, i) => (best === null || meta.combinations[i].place < meta.combinations[best].place ? i : best), null);
  const rivals = meta.pairs.filter(([a, b]) => (a === leader || b === leader) && shown.includes(a) && shown.includes(b));
  return { shown, leader, tested: rivals.length, tied: rivals.flatMap(([a, b, clear]) => (clear ? [] : [a === leader ? b : a])) };
}

function others(number, of) {
  if (number < of) return `${number} of ${of} others`;
  return { 1: "the other one", 2: "both others" }[of] || `all ${of} others`;
}

function verdictWords({ shown, tested, tied }) {
  if (shown.length < 2) return "It is the only combination shown";
  if (!tested) return `No test compares it with ${others(shown.length - 1, shown.length - 1)}`;
  if (!tied.length) return `It is clearly better than ${others(tested, tested)}`;
  return `It can't be told from ${others(tied.length, tested)}`;
}

function rewriteVerdicts() {
  for (const plot of D.plots) {
    const { meta } = plot.layout;
    const line = meta.verdict && $(meta.verdict);
    if (!line) continue;
    line.original ??= [...line.childNodes];
    const found = standing(meta);
    if (!filtered()) line.replaceChildren(...line.original);
    else if (!visible.size) line.replaceChildren(NO_MATCH + ".");
    else if (found.leader === null) line.replaceChildren("No combination of these is shown with all its runs, so there is no verdict.");
    else {
      const best = meta.combinations[found.leader];
      const known = meta.combinations.length < meta.of ? ` (the page knows the first ${meta.combinations.length} of ${meta.of})` : "";
      line.replaceChildren(
        element("b", { textContent: plain(best.name) }),
        `: ${best.text}, of the ${found.shown.length} combinations shown${known}. ${verdictWords(found)}.`,
      );
    }
  }
  for (const row of document.querySelectorAll("tr[data-runs]")) row.hidden = !shownWhole(row.dataset.runs.split(" ").map(Number));
}
