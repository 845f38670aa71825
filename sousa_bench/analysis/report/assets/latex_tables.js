/* A button below each table that saves what is shown of it as LaTeX, with the rules of booktabs. */

const LATEX = {
  "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", $: "\\$", "&": "\\&", "#": "\\#", "%": "\\%", _: "\\_",
  "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
  "±": "$\\pm$", "–": "--", "−": "$-$", "★": "$\\star$", "…": "\\dots{}", "≥": "$\\geq$", "≤": "$\\leq$", "×": "$\\times$",
};

function latexText(text) {
  return text.trim().replace(/\s+/g, " ").replace(/[\\{}$&#%_~^<>|±–−★…≥≤×]/g, (sign) => LATEX[sign]);
}

function latexTable(table, caption) {
  const written = (row) => [...row.cells].filter((cell) => !cell.classList.contains("sound"));
  const heads = written(table.tHead.rows[0]);
  const line = (cells) => "    " + cells.map((cell) => latexText(cell.textContent)).join(" & ") + " \\\\";
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden && written(row).length === heads.length);
  return [
    "\\begin{table}",
    "  \\centering",
    `  \\caption{${latexText(caption)}}`,
    `  \\begin{tabular}{${heads.map((head) => (head.classList.contains("n") ? "r" : "l")).join("")}}`,
    "    \\toprule",
    line(heads),
    "    \\midrule",
    ...rows.map((row) => line(written(row))),
    "    \\bottomrule",
    "  \\end{tabular}",
    "\\end{table}",
    "",
  ].join("\n");
}

function saveText(name, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/* The last heading or summary before a table. */
function captionOf(box) {
  const heads = [...document.querySelectorAll("main h2, main h3, main summary")].filter(
    (head) => head.textContent && !head.closest("figure") && head.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING,
  );
  return heads.length ? heads[heads.length - 1].textContent : "Table";
}

function buildLatexButtons() {
  for (const box of document.querySelectorAll("main .scroll")) {
    const table = box.querySelector("table");
    if (!table || !table.tHead) continue;
    const button = element("button", { type: "button", textContent: "LaTeX", title: "Save this table for LaTeX (booktabs)" });
    button.addEventListener("click", () => {
      const caption = captionOf(box);
      saveText(`${caption.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_|_$/g, "").slice(0, 60) || "table"}.tex`, latexTable(table, caption));
    });
    box.after(element("p", { className: "save" }, button));
  }
}
