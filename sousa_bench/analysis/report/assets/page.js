const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const byId = new Map(D.runs.map((run) => [run.id, run]));
const NO_MATCH = "No run matches";
const STORE = "sousa_bench:" + location.pathname;
// "sendChartToCloud" would upload the plot; the addresses that the library knows are gone from it as well.
const CONFIG = {
  responsive: true,
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "sendChartToCloud"],
  modeBarButtonsToAdd: [{ name: "svg", title: "Download plot as an SVG", icon: Plotly.Icons.disk, click: saveSvg }],
};
const state = { sort: D.metric, up: D.ascending, on: {}, text: "", min: "", selected: [], run: null, ...remembered() };
const selected = new Set(state.selected.filter((id) => byId.has(id)));
let visible = new Set();
let printing = false;

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(STORE)) || {};
  } catch {
    return {};
  }
}

function remember() {
  state.selected = [...selected];
  try {
    sessionStorage.setItem(STORE, JSON.stringify(state));
  } catch {
    /* private window: nothing is remembered */
  }
}

function element(name, options = {}, ...children) {
  const made = Object.assign(document.createElement(name), options);
  made.append(...children);
  return made;
}

function theme() {
  return printing ? "light" : document.documentElement.dataset.theme;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  markAll();
}

const systemDark = matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = null;
try {
  chosenTheme = localStorage.getItem("sousa_bench:theme");
} catch {
  /* no storage: the system decides */
}
document.documentElement.dataset.theme = chosenTheme || (systemDark.matches ? "dark" : "light");
systemDark.addEventListener("change", (event) => chosenTheme || setTheme(event.matches ? "dark" : "light"));
$("theme").addEventListener("click", () => {
  chosenTheme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("sousa_bench:theme", chosenTheme);
  } catch {
    /* as above */
  }
  setTheme(chosenTheme);
});

function refresh() {
  visible = new Set(D.runs.filter(passes).map((run) => run.id));
  markChips();
  rewriteVerdicts();
  fillTable();
  remember();
  markAll();
}

function copyFrom(button) {
  const range = document.createRange();
  range.selectNodeContents(button.parentElement.querySelector("code"));
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  document.execCommand("copy");
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", () => copyFrom(button));

/* On paper everything is open, light and as wide as a sheet. */
addEventListener("beforeprint", () => {
  printing = true;
  for (const box of document.querySelectorAll("main details:not([open])")) {
    box.open = true;
    box.dataset.folded = "";
  }
  plots.forEach((_, name) => drawOrSay(name));
});
addEventListener("afterprint", () => {
  printing = false;
  for (const box of document.querySelectorAll("details[data-folded]")) {
    box.open = false;
    delete box.dataset.folded;
  }
  markAll();
});
/* Called when every file of the script has been read. */
function start() {
  const wide = /^(leaders_.*|accuracy_comparison|pairwise_differences|model_strategy_heatmap|learning_curves|confusion_matrix|per_class_f1|accuracy_by_soundfont|seed_spread|search_trials)$/;
  for (const name of plots.keys()) if (wide.test(name)) $("figure-" + name).classList.add("wide");
  buildFilters();
  buildHead();
  buildChooser();
  buildLatexButtons();
  refresh();
}
