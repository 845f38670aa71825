/* The plots: what is shown and selected, drawn by plotly, one after another, the nearest first. */

const plots = new Map(D.plots.map((plot) => [plot.name, plot]));
const FAINT = 0.2;
const dirty = new Set();
let pumping = false;

function plain(text) {
  return text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&#36;/g, "$").replace(/&amp;/g, "&");
}

function ids(trace, index) {
  return [trace.customdata && trace.customdata[index]].flat(2);
}

/* A mark is of a run, of a combination's runs, or of two combinations'. */
function shownPoint(trace, index) {
  const own = trace.customdata[index];
  if (!Array.isArray(own)) return isShown(own);
  return Array.isArray(own[0]) ? own.every(shownWhole) : shownWhole(own);
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
  return made;
}

/* Where runs are selected, the others' marks with their intervals are a faint trace of their own. */
function apart(trace) {
  if (!selected.size || !trace.customdata) return [trace];
  const chosen = (index) => ids(trace, index).some((id) => selected.has(id));
  const parts = [Object.assign(pick(trace, (i) => !chosen(i)), { opacity: FAINT }), pick(trace, chosen)];
  return parts.filter((part) => part.y.length);
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
      .filter((trace) => trace.y.length)
      .flatMap(apart);
  },
  leaders(plot, layout) {
    const { leader, tested, tied } = standing(layout.meta);
    const made = DRAW.dots(plot, layout);
    const best = new Set(tested ? [leader, ...tied].map((i) => layout.meta.combinations[i].name) : []);
    layout.shapes = (layout.shapes || []).concat(
      layout.yaxis.categoryarray.flatMap((name, i) =>
        best.has(name) ? [{ type: "rect", xref: "paper", x0: 0, x1: 1, y0: i - 0.5, y1: i + 0.5, layer: "below", fillcolor: layout.meta.shade, line: { width: 0 } }] : [],
      ),
    );
    layout.height = 76 + 19 * Math.max(layout.yaxis.categoryarray.length, 3);
    return made;
  },
  points(plot) {
    const made = plot.data.map((trace) => (trace.customdata ? pick(trace, (i) => shownPoint(trace, i)) : structuredClone(trace)));
    const front = made.find((trace) => trace.meta && trace.meta.role === "front");
    if (front && filtered()) {
      const all = made.filter((t) => t.customdata && !t.meta).flatMap((t) => t.x.map((x, i) => [x, t.y[i]]));
      all.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
      let best = -Infinity;
      const kept = all.filter(([, y]) => y > best && ((best = y), true));
      front.x = kept.map((point) => point[0]);
      front.y = kept.map((point) => point[1]);
    }
    return made.flatMap(apart);
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
    const able = layout.meta.order.filter(isShown);
    const chosen = [...able.filter((id) => selected.has(id)), ...able.filter((id) => !selected.has(id))].slice(0, layout.meta.limit);
    const place = new Map(chosen.map((id, i) => [id, i]));
    if (!chosen.length) layout.note = "None of the runs shown is among those whose details this page holds.";
    else if (chosen.length < able.length) layout.note = `${chosen.length} of ${able.length} runs; select others in the table.`;
    return plot.data
      .filter((trace) => place.has(trace.meta.run))
      .map((trace) => {
        const made = structuredClone(trace);
        const mine = selected.has(trace.meta.run);
        if (made.line) made.line.width = mine ? 3.5 : 2;
        if (selected.size && !mine) made.opacity = FAINT * (made.opacity ?? 1);
        return made;
      })
      .sort((a, b) => place.get(a.meta.run) - place.get(b.meta.run));
  },
  variants(plot) {
    const own = plot.variants[state.run] || Object.values(plot.variants)[0];
    plot.title = own.title;
    return structuredClone(own.data);
  },
  static(plot, layout) {
    if (filtered()) layout.note = "Of all runs, whatever is filtered.";
    return structuredClone(plot.data);
  },
};

function draw(name) {
  const plot = plots.get(name);
  const target = $("plot-" + name);
  const layout = structuredClone(plot.layout);
  const data = DRAW[layout.meta.kind](plot, layout);
  if (!visible.size && layout.meta.kind !== "static" && layout.meta.kind !== "variants") sayNoMatch(layout);
  const note = layout.note || "";
  delete layout.note;
  const narrow = !printing && target.clientWidth < 520;
  layout.template = D.templates[theme()];
  layout.margin = { l: 8, r: 12, t: layout.annotations ? 34 : 12, b: 40 };
  delete layout.width;
  if (narrow) shrink(layout, data);
  if (printing) fitToSheet(name, layout, data);
  const title = plain(plot.title);
  $("figure-" + name).querySelector(".more").textContent = note;
  $("figure-" + name).querySelector("h3").textContent = title;
  target.setAttribute("aria-label", title);
  // The toolbar stands beside the title, above the plot (see the style sheet); a phone has no room for it.
  return Plotly.react(target, data, layout, { ...CONFIG, displayModeBar: narrow ? false : "hover", toImageButtonOptions: { scale: 2, filename: name } }).then(() => {
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

function saveSvg(target) {
  const { width, height } = target._fullLayout;
  return Plotly.downloadImage(target, { format: "svg", width, height, filename: target.id.replace(/^plot-/, "") });
}

function sayNoMatch(layout) {
  delete layout.note;
  layout.shapes = [];
  layout.annotations = [{ text: NO_MATCH, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 15 } }];
  for (const axis of ["xaxis", "yaxis", "xaxis2", "yaxis2"]) if (layout[axis]) layout[axis].visible = false;
}

/* As wide as A4 and Letter have room for between their margins, no higher than a page, no letter below 9 pt. */
const SHEET = { width: 690, half: 342, height: 850, usual: 215, letters: 12 };

/* A title in lines of so many letters, broken before a bracket and, where that is not enough, before "over". */
function inLines(text = "", room) {
  const breaks = [/ (?=\()/g, / (?=over )/g];
  return breaks.reduce((made, place) => (Math.max(...made.split("<br>").map((line) => line.length)) > room ? made.replace(place, "<br>") : made), text);
}

function fitToSheet(name, layout, data) {
  const rows = layout.yaxis && layout.yaxis.categoryarray;
  const narrow = ["points", "dots"].includes(layout.meta.kind) || (layout.meta.kind === "static" && rows);
  const half = Boolean(narrow) && !$("figure-" + name).classList.contains("wide");
  $("figure-" + name).classList.toggle("half", half);
  const dense = data.some((trace) => trace.type === "heatmap" && trace.x.length > 12);
  const classes = Math.max(...data.map((trace) => (trace.x || []).length), 1);
  const more = half || data.some((trace) => trace.type === "bar") ? 110 : layout.meta.kind === "traces" ? 40 : 0;
  const usual = SHEET.usual + more;
  const high = rows ? (half ? 150 : 105) + 14 * Math.max(rows.length, 3) : dense ? 220 + 15 * classes : Math.min(layout.height, usual);
  Object.assign(layout, { width: half ? SHEET.half : SHEET.width, height: Math.min(high, SHEET.height), autosize: false, font: { size: SHEET.letters } });
  const readable = (owner, part) => owner && (owner[part] = { ...owner[part], size: SHEET.letters });
  for (const [key, axis] of Object.entries(layout)) {
    if (!/^[xy]axis\d*$/.test(key)) continue;
    readable(axis, "tickfont");
    if (axis.title) {
      readable(axis.title, "font");
      axis.title.text = inLines(axis.title.text, (key[0] === "x" ? layout.width - (rows ? 150 : 60) : layout.height - 60) / (SHEET.letters * 0.56));
    }
    if (key === "yaxis" && rows) Object.assign(axis, { tickmode: "linear", dtick: 1 });
    if (axis.type !== "category" || axis.dtick === undefined || (key === "yaxis" && rows)) continue;
    const room = (key[0] === "x" ? SHEET.width - 200 : layout.height - 200) / (SHEET.letters + 1);
    axis.dtick = Math.max(axis.dtick, Math.ceil(classes / room / 1.1));
  }
  readable(layout.legend, "font");
  if (layout.legend && layout.legend.y < 0) Object.assign(layout.legend, { y: 1.02, yanchor: "bottom" }); // below, it lies on the title
  for (const words of layout.annotations || []) readable(words, "font");
  for (const trace of data) {
    if (trace.textfont) readable(trace, "textfont");
    if (trace.type !== "heatmap") continue;
    trace.colorbar = { ...trace.colorbar, thickness: 8, xpad: 2, tickfont: { size: SHEET.letters } };
    if (trace.colorbar.title) readable((trace.colorbar.title = { ...trace.colorbar.title }), "font");
  }
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
  drawOrSay(name).then(() => setTimeout(pump, 0));
}

/* A figure that can't be drawn says so and holds none of the others up. */
async function drawOrSay(name) {
  try {
    await draw(name);
  } catch (error) {
    console.error(name, error);
    $("figure-" + name).querySelector(".more").textContent = "This figure can't be drawn; the browser's console says why.";
  }
}
