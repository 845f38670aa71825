"use strict";
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const byId = new Map(D.runs.map((run) => [run.id, run]));
  const STORE = "sousa_bench:" + location.pathname;
  // "sendChartToCloud" would upload the plot; the addresses that the library knows are gone from it as well.
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "sendChartToCloud"],
  };
  const state = { sort: D.metric, up: D.ascending, off: {}, text: "", min: "", selected: [], run: null, ...remembered() };
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

  /* ---------- theme ---------- */

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

  /* ---------- filters ---------- */

  function word(key, value) {
    if (value === null || value === undefined) return "none";
    if (key === "augmentation") return value ? "with" : "without";
    return String(value);
  }

  function buildFilters() {
    const box = $("filters");
    for (const filter of D.filters) {
      const chips = element("div", { className: "chips" });
      for (const value of filter.values) {
        const name = word(filter.key, value);
        const input = element("input", { type: "checkbox", checked: !(state.off[filter.key] || []).includes(name) });
        input.dataset.key = filter.key;
        input.dataset.value = name;
        input.addEventListener("change", () => {
          const off = new Set(state.off[filter.key] || []);
          input.checked ? off.delete(name) : off.add(name);
          state.off[filter.key] = [...off];
          refresh();
        });
        chips.append(element("label", {}, input, name));
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
    $("reset").addEventListener("click", () => {
      Object.assign(state, { off: {}, text: "", min: "" });
      box.querySelectorAll("input[type=checkbox]").forEach((input) => (input.checked = true));
      search.value = floor.value = "";
      refresh();
    });
    $("deselect").addEventListener("click", () => (selected.clear(), refresh()));
  }

  function passes(run) {
    for (const [key, off] of Object.entries(state.off)) if (off.includes(word(key, run[key]))) return false;
    if (state.min !== "" && !(run.test_acc >= Number(state.min))) return false;
    if (!state.text) return true;
    const all = (D.labels[run.id] + " " + run.experiment + " " + run.status).toLowerCase();
    return state.text.toLowerCase().split(/\s+/).every((part) => all.includes(part));
  }

  /* ---------- table ---------- */

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
    $("table").tBodies[0].replaceChildren(...rows.map(tableRow));
    $("count").textContent = `${rows.length} of ${D.runs.length} runs shown` + (selected.size ? `, ${selected.size} selected` : "");
    $("deselect").hidden = !selected.size;
  }

  function tableRow(run) {
    const row = element("tr", { className: selected.has(run.id) ? "selected" : "", tabIndex: 0, title: run.experiment });
    row.dataset.id = run.id;
    row.setAttribute("aria-selected", selected.has(run.id));
    for (const column of D.columns) {
      const cell = element("td", { textContent: run.cells[column.key], className: column.text ? "" : "n" });
      if (column.key === "status" && /^[a-z]+$/.test(run.status)) cell.classList.add(run.status);
      if (run.asides[column.key]) cell.title = run.asides[column.key];
      row.append(cell);
    }
    row.addEventListener("click", () => toggle(run.id));
    row.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), toggle(run.id)));
    return row;
  }

  function toggle(id) {
    if (!byId.has(id)) return;
    selected.has(id) ? selected.delete(id) : selected.add(id);
    if (selected.has(id)) chooseRun(id);
    refresh();
  }

  /* ---------- plots ---------- */

  const plots = new Map(D.plots.map((plot) => [plot.name, plot]));
  const dirty = new Set();
  let pumping = false;

  function plain(text) {
    return text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&#36;/g, "$").replace(/&amp;/g, "&");
  }

  function ids(trace, index) {
    const own = trace.customdata && trace.customdata[index];
    return Array.isArray(own) ? own : [own];
  }

  function shownPoint(trace, index) {
    return ids(trace, index).every((id) => !byId.has(id) || visible.has(id));
  }

  function pick(trace, keep) {
    const count = trace.y.length;
    const chosen = [...Array(count).keys()].filter(keep);
    const made = structuredClone(trace);
    const shorten = (owner, key) => {
      if (owner && Array.isArray(owner[key]) && owner[key].length === count) owner[key] = chosen.map((i) => owner[key][i]);
    };
    for (const key of ["x", "y", "text", "customdata"]) shorten(made, key);
    for (const key of ["symbol", "size", "color", "opacity"]) shorten(made.marker, key);
    for (const bar of [made.error_x, made.error_y]) for (const key of ["array", "arrayminus"]) shorten(bar, key);
    if (selected.size && made.customdata) {
      made.selectedpoints = made.customdata.flatMap((_, i) => (ids(made, i).some((id) => selected.has(id)) ? [i] : []));
      made.unselected = { marker: { opacity: 0.2 } };
    }
    return made;
  }

  const DRAW = {
    dots(plot, layout) {
      const order = [...layout.yaxis.categoryarray].reverse();
      const there = new Set(plot.data.filter((t) => t.customdata).flatMap((t) => t.y.filter((_, i) => shownPoint(t, i))));
      const names = order.filter((name) => there.has(name)).slice(0, layout.meta.limit);
      const keep = new Set(names);
      layout.yaxis.categoryarray = [...names].reverse();
      layout.height = 130 + 19 * Math.max(names.length, 3);
      if (names.length < there.size) layout.note = `First ${names.length} of ${there.size}.`;
      return plot.data
        .map((trace) => (trace.customdata ? pick(trace, (i) => keep.has(trace.y[i]) && shownPoint(trace, i)) : structuredClone(trace)))
        .filter((trace) => trace.y.length);
    },
    points(plot) {
      const made = plot.data.map((trace) => (trace.customdata ? pick(trace, (i) => shownPoint(trace, i)) : structuredClone(trace)));
      const front = made.find((trace) => trace.meta && trace.meta.role === "front");
      if (front) {
        const all = made.filter((t) => t.customdata).flatMap((t) => t.x.map((x, i) => [x, t.y[i]]));
        all.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
        let best = -Infinity;
        const kept = all.filter(([, y]) => y > best && ((best = y), true));
        front.x = kept.map((point) => point[0]);
        front.y = kept.map((point) => point[1]);
      }
      return made;
    },
    cells(plot) {
      const made = structuredClone(plot.data[0]);
      made.meta.cells.forEach((line, i) =>
        line.forEach((cell, j) => {
          const kept = cell.filter((id) => byId.has(id) && visible.has(id)).map((id) => byId.get(id).test_acc);
          const mean = kept.length ? kept.reduce((a, b) => a + b, 0) / kept.length : null;
          made.z[i][j] = mean;
          made.text[i][j] = mean === null ? "" : `${mean.toFixed(3)}<br>n=${kept.length}`;
        }),
      );
      return [made];
    },
    traces(plot, layout) {
      const able = layout.meta.order.filter((id) => !byId.has(id) || visible.has(id));
      const chosen = [...able.filter((id) => selected.has(id)), ...able.filter((id) => !selected.has(id))].slice(0, layout.meta.limit);
      const place = new Map(chosen.map((id, i) => [id, i]));
      const colours = D.templates.light.layout.colorway;
      if (!chosen.length) layout.note = "None of the runs shown is among those whose details this page holds.";
      else if (chosen.length < able.length) layout.note = `${chosen.length} of ${able.length} runs; select others in the table.`;
      return plot.data
        .filter((trace) => place.has(trace.meta.run))
        .map((trace) => {
          const made = structuredClone(trace);
          const colour = colours[place.get(trace.meta.run) % colours.length];
          if (made.line) Object.assign(made.line, { color: colour, dash: "solid", width: selected.has(trace.meta.run) ? 3.5 : 2 });
          if (made.marker) made.marker.color = colour;
          return made;
        })
        .sort((a, b) => place.get(a.meta.run) - place.get(b.meta.run));
    },
    variants(plot) {
      const own = plot.variants[state.run] || Object.values(plot.variants)[0];
      plot.title = own.title;
      return structuredClone(own.data);
    },
    static(plot) {
      return structuredClone(plot.data);
    },
  };

  function draw(name) {
    const plot = plots.get(name);
    const target = $("plot-" + name);
    const layout = structuredClone(plot.layout);
    const data = DRAW[layout.meta.kind](plot, layout);
    const note = layout.note || "";
    delete layout.note;
    const narrow = target.clientWidth < 520;
    layout.template = D.templates[theme()];
    layout.margin = { l: 8, r: 12, t: layout.annotations ? 34 : 12, b: 40 };
    delete layout.width;
    if (narrow) shrink(layout, data);
    const title = plain(plot.title);
    $("figure-" + name).querySelector(".more").textContent = note;
    $("figure-" + name).querySelector("h3").textContent = title;
    target.setAttribute("aria-label", title);
    // The toolbar stands beside the title, above the plot (see the style sheet); a phone has no room for it.
    return Plotly.react(target, data, layout, { ...CONFIG, displayModeBar: narrow ? false : "hover" }).then(() => {
      target.dataset.drawn = theme();
      if (!target.dataset.bound) {
        target.dataset.bound = "yes";
        target.on("plotly_click", (event) => {
          const point = event.points[0];
          const meta = point.data.meta;
          if (meta && meta.run !== undefined) toggle(meta.run);
          else if (typeof point.customdata === "number" && layout.meta.kind !== "variants") toggle(point.customdata);
        });
      }
    });
  }

  function shrink(layout, data) {
    const small = (axis, size) => axis && (axis.tickfont = { ...(axis.tickfont || {}), size });
    const dense = layout.meta.kind === "variants" || (data[0] && data[0].type === "heatmap" && data[0].x.length > 12);
    layout.font = { size: 11 };
    layout.margin.r = 6;
    small(layout.xaxis, dense ? 6 : 9);
    small(layout.yaxis, dense ? 6 : 9);
    for (const axis of [layout.xaxis, layout.yaxis, layout.xaxis2, layout.yaxis2])
      if (axis && axis.title) axis.title.font = { size: 10 };
    if (layout.legend) layout.legend.font = { size: 10 };
    if (dense && data[0] && data[0].type === "heatmap") {
      layout.height = Math.min(layout.height || 460, 560);
      data.forEach((trace) => (trace.showscale = false));
    }
    if (layout.xaxis2) {
      layout.xaxis.domain = layout.xaxis2.domain = [0, 1];
      layout.yaxis.domain = [0.56, 1];
      layout.yaxis2.domain = [0, 0.42];
      delete layout.xaxis.title;
      layout.height = 680;
      if (layout.legend) layout.legend.y = -0.1;
    }
  }

  function markAll() {
    plots.forEach((_, name) => dirty.add(name));
    document.body.dataset.idle = "";
    if (!pumping) {
      pumping = true;
      setTimeout(pump, 0);
    }
  }

  function pump() {
    const near = [...dirty].find((name) => {
      const box = $("plot-" + name).getBoundingClientRect();
      return box.bottom > -300 && box.top < innerHeight + 300;
    });
    const name = near || dirty.values().next().value;
    if (name === undefined) {
      pumping = false;
      document.body.dataset.idle = "yes";
      return;
    }
    document.body.dataset.idle = "";
    dirty.delete(name);
    draw(name).then(() => setTimeout(pump, 0));
  }

  /* ---------- run chooser ---------- */

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

  /* ---------- together ---------- */

  function refresh() {
    visible = new Set(D.runs.filter(passes).map((run) => run.id));
    fillTable();
    remember();
    markAll();
  }

  for (const button of document.querySelectorAll(".copy"))
    button.addEventListener("click", () => {
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("code"));
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      document.execCommand("copy");
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });

  addEventListener("beforeprint", () => ((printing = true), plots.forEach((_, name) => draw(name))));
  addEventListener("afterprint", () => ((printing = false), markAll()));
  for (const name of ["accuracy_comparison", "pairwise_differences", "model_strategy_heatmap", "learning_curves", "confusion_matrix", "per_class_f1", "accuracy_by_soundfont", "seed_spread"])
    if ($("figure-" + name)) $("figure-" + name).classList.add("wide");
  buildFilters();
  buildHead();
  buildChooser();
  refresh();
})();
