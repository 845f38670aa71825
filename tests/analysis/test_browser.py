"""The page in a real headless browser: no error, no request; filter, sort, selection, themes, phone, print."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sousa_bench.analyze import main
from sousa_bench.results.result import write_json
from sousa_bench.task import Task
from tests.analysis.heard_clips import mishear_owls, write_heard, write_sounds
from tests.analysis.synthetic import MODELS, STRATEGIES, result, write_folds, write_result, write_sweep
from tests.analysis.test_safety import EVIL, hostile

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api")
pypdf = pytest.importorskip("pypdf")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(autouse=True)
def close_pages(browser: Any) -> Iterator[None]:
    """An open page holds its figures, and the browser works for all that are open."""
    yield
    for context in browser.contexts:
        context.close()


class Opened:
    """A page with everything it said and asked for."""

    def __init__(self, browser: Any, report: Path, width: int = 1300, height: int = 900, theme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = report.as_uri()
        self.page.goto(self.url)
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_selector("body[data-idle=yes]", timeout=60_000)

    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        return json.loads(self.page.locator("#data").text_content())

    def column(self, key: str) -> list[str]:
        heads = self.page.locator("#table thead th").evaluate_all("heads => heads.map(head => head.dataset.key)")
        return self.page.locator(f"#table tbody td:nth-child({heads.index(key) + 1})").all_inner_texts()

    def names(self, plot: str) -> list[str]:
        """The category labels that a plot shows."""
        return self.page.evaluate(f"document.getElementById('plot-{plot}').data.flatMap(t => t.customdata ? t.y : [])")

    def bright(self, plot: str) -> list[int]:
        """The runs whose marks a plot doesn't dim."""
        return self.page.evaluate(
            f"document.getElementById('plot-{plot}').data.filter(t => (t.opacity ?? 1) == 1 && !t.meta?.role)"
            ".flatMap(t => t.customdata ?? [])"
        )

    def chip(self, key: str, value: str) -> None:
        """Click on a filter's chip and wait for the plots."""
        self.page.locator(f'#filters button[data-key="{key}"][data-value="{value}"]').click()
        self.settle()

    def undrawn(self) -> list[str]:
        return self.page.evaluate(
            "[...document.querySelectorAll('.plot')].filter(p => !p.dataset.drawn || "
            "!p.querySelector('svg.main-svg') || "
            "!p.querySelector('.trace, .heatmaplayer image, .hm image, .barlayer .trace')).map(p => p.id)"
        )


def report(folder: Path) -> Path:
    assert main([str(folder), "--no-images"]) == 0
    return folder / "analysis" / "report.html"


@pytest.fixture(scope="module")
def comparison_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sweep(tmp_path_factory.mktemp("page") / "multirun", statuses={23: "failed"})
    for run in folder.glob("*/"):
        lines = "".join(f"line {number} of {run.name}\n" for number in range(200))
        (run / "run.log").write_text(lines)
    (next(folder.glob("efficientat_ia3_off*")) / "error.log").write_text("Traceback: <b>out</b> of memory\n")
    return report(folder)


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (1300, "light"),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in ((1300, "dark"), (390, "light"), (390, "dark"))),
    ],
)
def test_loads_without_an_error_or_a_request_and_draws_every_plot(
    browser, comparison_report: Path, width: int, theme: str
):
    opened = Opened(browser, comparison_report, width=width, theme=theme)
    assert opened.said == []
    assert opened.requests == [opened.url]
    assert opened.page.locator(".plot").count() == 15
    assert "not balanced" in opened.page.locator("figure.absent").inner_text()
    assert opened.undrawn() == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.evaluate("document.documentElement.dataset.theme") == theme
    shown = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", shown)[:3])) < 200) == (theme == "dark")


@pytest.mark.slow
def test_the_toolbar_covers_neither_legend_nor_plot(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    for name in ("accuracy_comparison", "model_strategy_heatmap", "efficiency_scatter"):
        opened.page.locator(f"#plot-{name}").hover()
        bar = opened.page.locator(f"#plot-{name} .modebar").bounding_box()
        drawing = opened.page.locator(f"#plot-{name} .main-svg").first.bounding_box()
        assert bar["y"] + bar["height"] <= drawing["y"] + 4, name
        title = opened.page.locator(f"#figure-{name} h3").evaluate(
            "head => { const range = document.createRange(); range.selectNodeContents(head); "
            "return range.getBoundingClientRect().right; }"
        )
        assert title <= bar["x"], name
    phone = Opened(browser, comparison_report, width=390, height=844)
    assert phone.page.locator(".modebar").count() == 0


@pytest.mark.slow
def test_the_page_knows_no_address_and_its_toolbar_offers_none(browser, comparison_report: Path):
    addresses = re.findall(r"""["'`(](?:https?:)?//[^"'`)\s]+""", comparison_report.read_text())
    assert {address[1:].partition("/")[2].split("/")[1] for address in addresses} == {"www.w3.org"}
    opened = Opened(browser, comparison_report)
    titles = opened.page.locator(".modebar-btn").evaluate_all("all => all.map(b => b.dataset.title || b.innerText)")
    assert {"Download plot as a PNG", "Reset axes"} <= set(titles)
    assert not re.search("share|upload|cloud|edit|plotly|chart", " ".join(titles), re.IGNORECASE)
    links = opened.page.locator("a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links
    assert all(link.startswith("#") for link in links)
    loading = "[src], link[href]:not([href^='data:']), iframe, object, embed, form"
    assert opened.page.locator(loading).count() == 0
    opened.page.locator("#plot-efficiency_scatter").hover()
    for button in opened.page.locator("#plot-efficiency_scatter .modebar-btn").all():
        button.click()
    assert [url for url in opened.requests if not url.startswith("blob:")] == [opened.url]  # the PNG is a blob
    assert len(opened.context.pages) == 1
    assert opened.said == []


@pytest.mark.slow
def test_folds_are_a_column_and_a_filter_and_origins_a_column(browser, tmp_path: Path):
    folder = write_folds(tmp_path / "multirun")
    first = sorted(folder.glob("*/result.json"))[0]
    lineage = {"command": "promote", "from": [{"experiment_id": "parent_" * 9, "val_acc": 0.5}], "warm": False}
    write_json(first, json.loads(first.read_text()) | {"lineage": lineage})
    opened = Opened(browser, report(folder))
    page = opened.page
    assert sorted(set(opened.column("data.fold"))) == [f"{number}/5" for number in range(1, 6)]
    opened.chip("data.fold", "2/5")
    assert page.locator("#table tbody tr").count() == 2
    page.locator("#reset").click()
    opened.settle()
    (cell,) = page.locator("#table td[title*=parent_]").all()
    assert cell.get_attribute("title") == f"started anew after {'parent_' * 9} (val acc 0.5000)"
    assert cell.inner_text().endswith("…")
    assert "Where these runs come from" in page.locator("#origins").inner_text()
    assert opened.said == []


@pytest.mark.slow
def test_the_filter_changes_table_and_plots(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    page = opened.page
    assert page.locator("#table tbody tr").count() == 24
    before = page.evaluate("document.getElementById('plot-model_strategy_heatmap').data[0].z")
    opened.chip("model", "ast")
    assert set(opened.column("model")) == {"ast"}
    assert page.locator("#filters button[aria-pressed=true]").all_inner_texts() == ["ast"]
    opened.chip("model", "htsat")
    opened.chip("model", "efficientat")
    assert page.locator("#table tbody tr").count() == 18
    assert "beats" not in opened.column("model")
    assert page.locator("#count").inner_text() == "18 of 24 runs shown (Model: ast, htsat, efficientat)"
    for plot in ("accuracy_comparison", "training_time", "augmentation_effect"):
        assert opened.names(plot), plot
        assert not any("beats" in name for name in opened.names(plot)), plot
    after = page.evaluate("document.getElementById('plot-model_strategy_heatmap').data[0].z")
    assert before[1][0] is not None
    assert after[1] == [None, None, None]
    assert after[0] == pytest.approx(before[0], abs=1e-4)
    front = "document.getElementById('plot-efficiency_scatter').data.find(t => t.meta && t.meta.role === 'front').y"
    assert max(page.evaluate(front)) < 0.905
    page.locator("#floor").fill("0.85")
    page.locator("#search").fill("ast lora")
    opened.settle()
    assert opened.column("model") == ["ast"] * page.locator("#table tbody tr").count()
    page.locator("#reset").click()
    opened.settle()
    assert page.locator("#table tbody tr").count() == 24
    assert opened.said == []


@pytest.mark.slow
def test_an_empty_filter_says_so_and_shows_all_again(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    page = opened.page
    page.locator("#search").fill("no such run")
    opened.settle()
    assert "No run matches" in page.locator("#table tbody").inner_text()
    assert page.locator("#count").inner_text() == "0 of 24 runs shown (“no such run”)"
    for plot in ("accuracy_comparison", "efficiency_scatter", "model_strategy_heatmap", "learning_curves"):
        assert "No run matches" in page.locator(f"#plot-{plot}").inner_text(), plot
    assert "whatever is filtered" in page.locator("#figure-pairwise_differences figcaption").inner_text()
    page.locator("#table tbody button").click()
    opened.settle()
    assert page.locator("#table tbody tr").count() == 24
    assert opened.undrawn() == []
    assert opened.said == []


@pytest.mark.slow
def test_a_model_keeps_its_colour_whatever_is_shown(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    colours = """() => {
        const found = {};
        const note = (run, colour) => (found[byModel[run]] ??= new Set()).add(colour);
        const byModel = Object.fromEntries(JSON.parse(document.getElementById("data").textContent).runs.map(
            run => [run.id, run.model]));
        for (const name of ["accuracy_comparison", "learning_curves", "accuracy_by_tempo", "efficiency_scatter"])
            for (const trace of document.getElementById("plot-" + name).data) {
                if (trace.meta?.run !== undefined) note(trace.meta.run, (trace.line ?? trace.marker).color);
                else if (!trace.meta?.role) for (const id of trace.customdata ?? []) note(id, trace.marker.color);
            }
        return Object.fromEntries(Object.entries(found).map(([model, all]) => [model, [...all]]));
    }"""
    before = opened.page.evaluate(colours)
    assert sorted(before) == sorted(MODELS)
    assert all(len(found) == 1 for found in before.values())
    assert len({found[0] for found in before.values()}) == len(MODELS)
    opened.chip("model", "htsat")
    opened.chip("model", "efficientat")
    after = opened.page.evaluate(colours)
    assert after == {model: before[model] for model in ("htsat", "efficientat")}


@pytest.fixture(scope="module")
def reports(comparison_report: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Reports by about how many combinations they have."""
    few = write_sweep(tmp_path_factory.mktemp("few"), MODELS[:2], STRATEGIES[:2], (True,), per_player=20)
    many = write_sweep(
        tmp_path_factory.mktemp("many"), strategies=(*STRATEGIES, "dora", "bitfit"),
        extra={"peft.r": (4, 8, 16, 32, 64)}, players=10, per_player=8,
    )  # fmt: skip
    return {4: report(few), 24: comparison_report, 200: report(many)}


@pytest.mark.slow
@pytest.mark.parametrize("combinations", [4, 24, 200])
def test_the_first_screen_shows_verdict_picture_and_table(browser, reports: dict[int, Path], combinations: int):
    wide = Opened(browser, reports[combinations])
    shows_the_answer(wide, 1300, 900, min(combinations, 10))
    wide.page.locator("#theme").click()
    wide.settle()
    assert wide.page.evaluate("document.documentElement.dataset.theme") == "dark"
    shows_the_answer(wide, 1300, 900, min(combinations, 10))
    wide.page.set_viewport_size({"width": 1042, "height": 900})  # 1,000 px of it for the table
    table = wide.page.locator("section#answer .scroll").first
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth + 1 && box.clientWidth <= 1000")
    assert table.locator("thead th").count() <= 10
    phone = Opened(browser, reports[combinations], 390, 844, "dark")  # the system's choice
    shows_the_answer(phone, 390, 844, min(combinations, 10))


def shows_the_answer(opened: Opened, width: int, height: int, rows: int) -> None:
    """Verdict, picture and the table's first rows stand within the window, in this order."""
    page = opened.page
    verdict, picture = page.locator(".verdict").first, page.locator("#plot-leaders_A .main-svg").first
    ends = [
        verdict.bounding_box(),
        picture.bounding_box(),
        page.locator("section#answer tbody tr").nth(2).bounding_box(),
    ]
    assert page.evaluate("scrollY") == 0
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in ends[:2])
    assert [box["y"] for box in ends] == sorted(box["y"] for box in ends)
    assert ends[-1]["y"] + ends[-1]["height"] <= height
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#plot-leaders_A .ytick").count() == rows
    assert page.locator("#plot-leaders_A .shapelayer path").count() > 1  # chance, and who can be the best


@pytest.mark.slow
def test_the_verdict_follows_the_filters(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    page = opened.page
    verdict = page.locator(".verdict").first
    every = verdict.inner_text()
    page.locator("section#answer details summary").click()
    assert every.startswith("beats + lora, aug: 91.5 %")
    opened.chip("model", "efficientat")
    assert page.locator("section#answer tbody tr:visible", has_text="efficientat").count() == 5
    assert re.fullmatch(
        r"efficientat \+ adalora, aug: 82\.8 % \[[\d.–]+\], of the 5 combinations shown\. "
        r"It can't be told from (\d of 4|all 4) others\.",
        verdict.inner_text(),
    )
    assert all("efficientat" in name for name in opened.names("leaders_A"))
    assert page.locator("section#answer tbody tr:visible", has_text="beats").count() == 0
    opened.chip("augmentation", "with")
    opened.chip("strategy", "ia3")
    assert verdict.inner_text().endswith("of the 1 combinations shown. It is the only combination shown.")
    page.locator("#search").fill("nothing at all")
    opened.settle()
    assert verdict.inner_text() == "No run matches."
    page.locator("#reset").click()
    opened.settle()
    assert verdict.inner_text() == every
    opened.chip("strategy", "lora")
    opened.chip("strategy", "ia3")
    tied = page.evaluate("document.getElementById('plot-leaders_A').layout.shapes.filter(s => s.type == 'rect').length")
    number = re.search(r"told from (\d+) of 14 others", verdict.inner_text())
    assert tied == min(int(number[1]) + 1, 10)
    assert opened.said == []


CONTRAST = """() => {
    const parse = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map(i => top[i] * a + under[i] * (1 - a)); };
    const ground = item => {
        const layers = [];
        for (let at = item; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
    };
    const found = [];
    for (const item of document.querySelectorAll("body *")) {
        const own = [...item.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!own || !item.getClientRects().length || item.closest("script, .heatmaplayer, .modebar")) continue;
        const style = getComputedStyle(item);
        const svg = item.closest("svg");
        const under = ground(svg ? svg.closest("figure") : item);
        const [a, b] = [light(over(parse(svg ? style.fill : style.color), under)), light(under)].sort((x, y) => y - x);
        found.push([(a + 0.05) / (b + 0.05), item.textContent.slice(0, 40), item.className.baseVal ?? item.className]);
    }
    return found;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser, comparison_report: Path, theme: str):
    opened = Opened(browser, comparison_report, theme=theme)
    opened.chip("model", "beats")
    opened.chip("model", "efficientat")
    opened.page.locator("#table tbody tr", has_text="failed").click()
    opened.page.locator("summary").first.click()
    found = opened.page.evaluate(CONTRAST)
    assert len(found) > 800
    assert [item for item in found if item[0] < 4.5] == []


@pytest.mark.slow
def test_the_sort_changes_what_is_shown(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)

    def numbers(key: str) -> list[float]:
        found = [re.sub(r"[^\d.]", "", text) for text in opened.column(key)]
        return [float(text) for text in found if text]

    accuracies = numbers("test_acc")
    assert accuracies == sorted(accuracies, reverse=True)
    opened.page.locator("#table th[data-key=trainable_params] button").click()
    assert numbers("trainable_params") == sorted(numbers("trainable_params"), reverse=True)
    opened.page.locator("#table th[data-key=trainable_params] button").click()
    assert numbers("trainable_params") == sorted(numbers("trainable_params"))
    head = opened.page.locator("#table th[data-key=trainable_params]")
    assert head.get_attribute("aria-sort") == "ascending"
    opened.page.locator("#table th[data-key=model] button").click()
    assert opened.column("model") == sorted(opened.column("model"))


@pytest.mark.slow
def test_a_selected_row_stands_out_in_the_plots_and_its_predictions_are_shown(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    page = opened.page
    row = page.locator("#table tbody tr").nth(5)
    row.click()
    opened.settle()
    assert page.locator("#table tbody tr.selected").count() == 1
    mine = int(row.get_attribute("data-id"))
    for plot in ("accuracy_comparison", "efficiency_scatter", "training_time"):
        assert opened.bright(plot) == [mine], plot
    opacity = "bars => bars.map(bar => Number(getComputedStyle(bar.closest('.trace')).opacity))"
    bars = page.locator("#plot-accuracy_comparison .errorbars:has(path)").evaluate_all(opacity)
    assert sorted(set(bars)) == [0.2, 1]
    assert bars.count(1) == 1
    label = page.locator("#run option:checked").inner_text()
    assert page.locator("#figure-confusion_matrix h3").inner_text() == f"Confusions: {label}"
    page.locator("#run").select_option(index=2)
    opened.settle()
    assert (
        page.locator("#figure-per_class_f1 h3").inner_text().endswith(page.locator("#run option:checked").inner_text())
    )
    page.locator("#deselect").click()
    opened.settle()
    assert page.locator("#table tbody tr.selected").count() == 0


@pytest.mark.slow
def test_a_click_on_a_row_shows_the_runs_details(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    page = opened.page
    panel = page.locator("#details")
    assert not panel.is_visible()
    row = page.locator("#table tbody tr", has_text="beats").first
    name = row.get_attribute("title")
    made = json.loads((comparison_report.parents[1] / name / "result.json").read_text())
    row.click()
    text = panel.inner_text()
    assert str(comparison_report.parents[1] / name) in text
    assert all(override in text for override in made["overrides"])
    assert re.search(r"peft\.name\s+" + made["config"]["strategy"], text)
    assert "python -m sousa_bench.train -m sweep=2026-02-01/10-30-00 model=beats" in text
    assert f"line 199 of {name}" in text
    assert "line 100 of" not in text
    panel.locator("summary", has_text="Each epoch").click()
    assert panel.locator("thead th").all_inner_texts()[0] == "epoch"
    last = panel.locator(".scroll tbody tr").last.locator("td").all_inner_texts()
    final = made["history"][-1]
    assert [float(value) for value in last] == [
        20, *(pytest.approx(final[key], rel=1e-3) for key in ("val_acc", "val_loss", "train_loss"))
    ]  # fmt: skip
    panel.locator("summary", has_text="keys that all runs here share").click()
    assert re.search(r"trainer\.batch_size\s+16", panel.inner_text())
    failed = page.locator("#table tbody tr", has_text="failed")
    failed.click()
    assert "Traceback: <b>out</b> of memory" in panel.inner_text()
    assert "CUDA out of memory" in panel.inner_text()
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert page.locator("#table tbody tr.selected").count() == 2
    assert opened.said == []
    phone = Opened(browser, comparison_report, width=390, height=844)
    phone.page.locator("#table tbody tr").first.click()
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.page.locator("#details").bounding_box()["width"] <= 390


@pytest.mark.slow
def test_a_click_on_a_mark_selects_its_run(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    point = opened.page.locator("#plot-accuracy_comparison .scatterlayer .point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    opened.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.page.wait_for_selector("#table tbody tr.selected")
    assert opened.page.locator("#table tbody tr.selected").count() == 1


@pytest.mark.slow
def test_the_theme_button_and_the_choice_that_lasts(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    colour = "document.getElementById('plot-training_time').layout.template.layout.paper_bgcolor"
    assert opened.page.evaluate(colour) == "#ffffff"
    opened.page.locator("#theme").click()
    opened.settle()
    assert opened.page.evaluate(colour) == "#161b22"
    opened.chip("strategy", "lora")
    opened.page.reload()
    opened.settle()
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert set(opened.column("strategy")) == {"lora"}


SHEETS = {"A4": (794, 1123), "Letter": (816, 1056)}  # in CSS pixels
ROWS = dict.fromkeys(("figure-accuracy_comparison", "figure-training_time", "figure-peak_memory"), 23 + 3)
MARGIN = 38  # 10 mm in them


def squeezed(text: str) -> str:
    """A text without ligatures and spaces, which a PDF breaks lines at."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


class Printed:
    """A PDF: the text of each page, and the size in points of each piece of it."""

    def __init__(self, path: Path) -> None:
        self.pages: list[str] = []
        self.sizes: dict[str, float] = {}
        for page in pypdf.PdfReader(path).pages:
            self.pages.append(squeezed(page.extract_text(visitor_text=self.note)))

    def note(self, text: str, cm: list[float], tm: list[float], _font: Any, size: float) -> None:
        a, b, c, d = (cm[i] * tm[j] + cm[i + 2] * tm[j + 1] for j in (0, 2) for i in (0, 1))
        if text.strip():
            self.sizes[text.strip()] = size * abs(a * d - b * c) ** 0.5

    def page_of(self, *texts: str) -> int | None:
        """The page that holds all the texts."""
        return next((n for n, page in enumerate(self.pages) if all(squeezed(text) in page for text in texts)), None)


@pytest.mark.slow
@pytest.mark.parametrize("sheet", SHEETS)
def test_print_loses_nothing_and_cuts_no_figure(browser, comparison_report: Path, tmp_path: Path, sheet: str):
    opened = Opened(browser, comparison_report, theme="dark")
    page = opened.page
    page.pdf(path=tmp_path / "report.pdf", format=sheet, print_background=True)
    printed = Printed(tmp_path / "report.pdf")
    assert len(printed.pages) <= 12
    assert {text: size for text, size in printed.sizes.items() if size < 8.95} == {}
    # As it is laid out for paper, where nothing may reach over the edge and no figure may be higher than a page.
    width, height = (length - 2 * MARGIN for length in SHEETS[sheet])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": width, "height": height})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert set(page.evaluate("[...document.querySelectorAll('.plot')].map(p => p.dataset.drawn)")) == {"light"}
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not page.locator("nav").is_visible()
    right = "all => Math.max(...all.map(item => item.getBoundingClientRect().right))"
    assert page.locator("td, th, .plot svg, pre, p, li").evaluate_all(right) <= width
    for figure in page.locator("figure[id]").all():
        name = figure.get_attribute("id")
        assert figure.bounding_box()["height"] <= height, name
        labels = figure.locator(".ytick text, .xtick text").all_text_contents()
        assert len(labels) >= ROWS.get(name, 3), name
        title, caption = figure.locator("h3").inner_text(), figure.locator("figcaption").inner_text()
        assert printed.page_of(title, caption, *labels) is not None, name
    whole = "".join(printed.pages)
    texts = page.locator("td, main p:not(.chooser, .save), main li, summary, h2, pre").all_inner_texts()
    assert len(texts) > 500
    lost = [text for text in texts if squeezed(text) and squeezed(text) not in whole]
    assert lost == []


@pytest.mark.slow
def test_print_breaks_long_titles_of_axes_and_puts_no_legend_on_them(browser, comparison_report: Path):
    page = Opened(browser, comparison_report).page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1047})
    page.wait_for_function("[...document.querySelectorAll('.plot')].every(p => p.dataset.drawn === 'light')")
    beyond = page.locator(".plot").evaluate_all(
        "all => all.flatMap(plot => { const box = plot.querySelector('svg.main-svg').getBoundingClientRect();"
        "return [...plot.querySelectorAll('.xtitle, .ytitle, .x2title, .y2title')].filter(title => {"
        "const own = title.getBoundingClientRect(); return own.top < box.top - 1 || own.bottom > box.bottom + 1"
        "|| own.left < box.left - 1 || own.right > box.right + 1; })"
        ".map(title => plot.id + ': ' + title.textContent); })"
    )
    assert beyond == []
    covered = page.locator(".plot").evaluate_all(
        "all => all.filter(plot => {"
        "const legend = plot.querySelector('.legend'), title = plot.querySelector('.xtitle');"
        "if (!legend || !title) return false; const [a, b] = [legend, title].map(each => each.getBoundingClientRect());"
        "return a.top < b.bottom && b.top < a.bottom && a.left < b.right && b.left < a.right; }).map(plot => plot.id)"
    )
    assert covered == []


@pytest.mark.slow
def test_what_was_folded_for_the_screen_is_folded_again_after_printing(browser, comparison_report: Path):
    page = Opened(browser, comparison_report).page
    folded = page.locator("main details").count()
    assert folded
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("main details[open]").count() == folded
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("main details[open]").count() == 0


def saved(opened: Opened, button: Any) -> tuple[str, str]:
    """Name and content of the file that a button saves."""
    with opened.page.expect_download() as download:
        button.click()
    return download.value.suggested_filename, Path(download.value.path()).read_text()


@pytest.mark.slow
def test_tables_are_saved_for_latex_and_figures_as_svg(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    page = opened.page
    name, text = saved(opened, page.locator("section#answer .scroll + .save button").first)
    assert name == "answer.tex"
    lines = [line.strip() for line in text.splitlines()]
    columns = page.locator("section#answer table").first.locator("th").count()
    assert [lines[place] for place in (0, 1, 2, 4, 6, -3)] == [
        "\\begin{table}", "\\centering", "\\caption{Answer}", "\\toprule", "\\midrule", "\\bottomrule"
    ]  # fmt: skip
    assert re.fullmatch(r"\\begin\{tabular\}\{[lr]+\}", lines[3])
    assert len(lines[3].rpartition("{")[2]) - 1 == columns
    assert lines[7].startswith("1 & beats + lora, aug & 91.5 \\% & 87.4--93.4 &")
    assert len(lines) == 7 + 10 + 3
    opened.chip("model", "beats")
    assert page.locator("#table tbody tr").count() == 6
    _, text = saved(opened, page.locator("#runs .save button"))
    assert text.count("beats") == 6
    assert text.count("\\\\\n") == 7
    page.locator("#plot-efficiency_scatter").hover()
    svg = page.locator("#plot-efficiency_scatter .modebar-btn[data-title*=SVG]")
    name, text = saved(opened, svg)
    assert name == "efficiency_scatter.svg"
    assert text.startswith("<svg")
    assert "Trainable parameters" in text
    assert [url for url in opened.requests if not url.startswith("blob:")] == [opened.url]
    assert opened.said == []


@pytest.mark.slow
def test_clips_that_all_mishear_can_be_heard(browser, tmp_path: Path):
    sounds = write_sounds(tmp_path / "sounds")
    runs = write_heard(tmp_path / "runs", sounds, mishear_owls)
    assert main([str(runs), "--no-images", "--data", str(sounds)]) == 0
    opened = Opened(browser, runs / "analysis" / "report.html")
    players = opened.page.locator("#misheard tbody tr audio")
    assert players.count() == 3
    decoded = players.evaluate_all(
        "all => Promise.all(all.map(a => new Promise((done, fail) => { a.onerror = () => fail(a.error.message);"
        "a.oncanplaythrough = () => done(a.duration); a.preload = 'auto'; a.load(); })))"
    )
    assert decoded == [5, 5, 5]
    assert players.first.is_visible()
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.url]
    name, text = saved(opened, opened.page.locator("#misheard .save button"))
    assert name == "clips_that_all_mishear.tex"
    assert "sound" not in text
    assert text.count("\n    owl & ") == 3
    opened.page.emulate_media(media="print")
    assert not players.first.is_visible()
    assert not opened.page.locator("#misheard th.sound").is_visible()


@pytest.mark.slow
def test_what_a_sweep_refused_is_not_run_with_its_reason(browser, tmp_path: Path):
    folder = write_sweep(tmp_path, ("ast", "efficientat"), ("lora", "ia3"), (True,), missing=(3,), per_player=20)
    manifest = json.loads((folder / "sweep.json").read_text())
    manifest["jobs"][3] |= {"status": "refused", "reason": "ia3 finds <no> layer that it knows"}
    write_json(folder / "sweep.json", manifest)
    opened = Opened(browser, report(folder))
    text = opened.page.locator("section#not-run").inner_text()
    assert "model=efficientat peft=ia3 augmentation=on data=small" in text
    assert "ia3 finds <no> layer that it knows" in text
    assert "seed" not in text
    assert opened.page.locator("#plot-model_strategy_heatmap .annotation-text").all_text_contents() == ["not run"]
    assert "ia3 finds" in (folder / "analysis" / "summary_report.md").read_text()


@pytest.mark.slow
def test_failures_come_with_their_command(browser, comparison_report: Path):
    text = Opened(browser, comparison_report).page.locator("#failures").inner_text()
    assert "oom in fit" in text
    assert "sousa_bench.train -m sweep=2026-02-01/10-30-00 model=efficientat peft=ia3 augmentation=off" in text


def several_labels(folder: Path) -> None:
    """Let the results of a folder be of clips that may have several labels."""
    for file in folder.glob("*/result.json"):
        made = json.loads(file.read_text())
        made["task"] = Task(("low", "high"), several=True, noun="tone").as_dict()
        made["metrics"]["test_map"] = made["metrics"].pop("test_acc")
        made["metrics"]["val_map"] = made["metrics"].pop("val_acc")
        write_json(file, made)


@pytest.mark.slow
@pytest.mark.parametrize("change", [several_labels, lambda folder: None], ids=["several labels", "no predictions"])
def test_every_plot_is_drawn_where_chance_is_not_known(browser, tmp_path: Path, change: Callable[[Path], None]):
    folder = write_sweep(tmp_path / "multirun", MODELS[:2], STRATEGIES[:2], predictions=False)
    change(folder)
    opened = Opened(browser, report(folder))
    assert opened.undrawn() == []
    opened.chip("model", MODELS[0])
    assert len(opened.names("leaders_A")) == 4
    assert opened.said == []


@pytest.mark.slow
def test_a_figure_that_fails_says_so_and_holds_up_no_other(browser, comparison_report: Path):
    opened = Opened(browser, comparison_report)
    opened.page.evaluate(
        "() => { const react = Plotly.react; Plotly.react = (target, ...more) => { "
        "if (target.id === 'plot-leaders_A') throw new Error('broken'); return react(target, ...more); }; }"
    )
    opened.chip("model", "ast")
    assert "can't be drawn" in opened.page.locator("#figure-leaders_A figcaption").inner_text()
    assert not any("beats" in name for name in opened.names("accuracy_comparison"))
    (said,) = opened.said
    assert "leaders_A Error: broken" in said


def page_of_few(monkeypatch: pytest.MonkeyPatch, folder: Path, output: Path, most: int) -> Path:
    """The report of a sweep on a page that holds no more than ``most`` runs one by one."""
    monkeypatch.setattr("sousa_bench.analysis.drawn_runs.MOST_RUNS", most)
    monkeypatch.setattr("sousa_bench.analysis.drawn_runs.ROW_LIMIT", 1)
    assert main([str(folder), "--no-images", "--output-dir", str(output)]) == 0
    return output / "report.html"


@pytest.mark.slow
def test_a_filters_verdict_names_the_best_of_too_many_combinations(
    browser, comparison: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("sousa_bench.analysis.standings.MOST_COMBINATIONS", 12)
    opened = Opened(browser, page_of_few(monkeypatch, comparison, tmp_path, 20))
    page, data = opened.page, opened.data()
    assert "of all runs the best, the worst" in page.locator("#runs").inner_text()
    held = {run["id"]: run for run in data["runs"]}
    assert 12 < len(held) <= 20
    leaders = next(plot for plot in data["plots"] if plot["name"] == "leaders_A")["layout"]["meta"]["combinations"]
    runs = [held[each["rows"][0]] for each in leaders]  # one a combination, and all held
    assert len(runs) == 12
    for key, value, chip in (("augmentation", False, "without"), ("strategy", "ia3", "ia3")):
        opened.chip(key, chip)
        left = [number for number, run in enumerate(runs) if run[key] == value]
        best = max(left, key=lambda number: runs[number]["test_acc"])
        verdict = page.locator(".verdict").first.inner_text()
        assert best > 0, key
        assert verdict.startswith(leaders[best]["name"]), key
        assert f"of the {len(left)} combinations shown (the page knows the first 12 of 24)" in verdict, key
        opened.chip(key, chip)
    assert opened.names("augmentation_effect")
    for chip in ("with", "without"):
        opened.chip("augmentation", chip)
        assert opened.names("augmentation_effect") == [], chip
        opened.chip("augmentation", chip)
    assert page.locator(".verdict").first.inner_text().startswith(leaders[0]["name"])
    assert opened.said == []


@pytest.mark.slow
def test_a_page_of_too_many_runs_draws_some_and_sums_up_all(browser, tmp_path: Path, monkeypatch):
    folder = write_sweep(
        tmp_path / "multirun", MODELS[:2], STRATEGIES[:1], seeds=tuple(range(1, 11)), players=12, per_player=20
    )
    accuracy = {
        made["experiment_id"]: made["metrics"]["test_acc"]
        for made in (json.loads(path.read_text()) for path in folder.glob("*/result.json"))
    }
    opened = Opened(browser, page_of_few(monkeypatch, folder, tmp_path / "few", 24))
    page, data = opened.page, opened.data()
    held = {run["experiment"] for run in data["runs"]}
    assert 16 <= len(held) <= 24
    assert page.locator("#table tbody tr").count() == len(held)
    assert f"{len(held)} of 40 runs: of each combination the best, the worst" in page.locator("#runs").inner_text()
    for combination in ("ast_lora_on", "ast_lora_off", "htsat_lora_on", "htsat_lora_off"):
        own = {name: value for name, value in accuracy.items() if name.startswith(combination)}
        assert {max(own, key=own.get), min(own, key=own.get)} < held & own.keys(), combination

    said = f"({len(held)} of 40 runs drawn)"
    for name in ("accuracy_comparison", "efficiency_scatter", "time_accuracy", "training_time", "peak_memory"):
        assert said in page.locator(f"#figure-{name} h3").inner_text(), name
        assert "intervals are of all runs" in page.locator(f"#figure-{name} figcaption").inner_text(), name
        assert sorted(opened.bright(name)) == sorted(run["id"] for run in data["runs"]), name
    assert said in page.locator("#figure-seed_spread h3").inner_text()
    means = page.evaluate("document.getElementById('plot-model_strategy_heatmap').data[0].text")
    for model, text in zip(MODELS[:2], means, strict=True):
        own = [value for name, value in accuracy.items() if name.startswith(model)]
        mean, _, runs = text[0].partition("<br>")
        assert (float(mean), runs) == (pytest.approx(sum(own) / 20, abs=6e-4), "n=20")
    assert opened.undrawn() == []

    opened.chip("model", "ast")
    assert "of the 2 combinations shown" in page.locator(".verdict").first.inner_text()
    assert len(opened.names("leaders_A")) == 2
    assert set(opened.bright("efficiency_scatter")) == {run["id"] for run in data["runs"] if run["model"] == "ast"}
    assert "Of all runs" in page.locator("#figure-model_strategy_heatmap figcaption").inner_text()
    opened.chip("seed", str(next(run["seed"] for run in data["runs"] if run["model"] == "ast")))
    assert "No combination of these is shown with all its runs" in page.locator(".verdict").first.inner_text()
    assert opened.said == []


@pytest.mark.slow
def test_five_hundred_runs(browser, tmp_path: Path):
    folder = write_sweep(
        tmp_path / "multirun", strategies=(*STRATEGIES, "dora"), seeds=tuple(range(1, 9)), extra={"peft.r": (8, 16)},
        players=12, per_player=20,
    )  # fmt: skip
    opened = Opened(browser, report(folder))
    page = opened.page
    assert page.locator("#table tbody tr").count() == len(MODELS) * 4 * 2 * 8 * 2 == 512
    assert len(opened.names("accuracy_comparison")) == 40
    assert "First 40 of 512" in page.locator("#figure-accuracy_comparison figcaption").inner_text()
    opened.chip("model", "htsat")
    opened.chip("model", "efficientat")
    assert page.locator("#table tbody tr").count() == 256
    assert not any("beats" in name or "ast" in name.split() for name in opened.names("accuracy_comparison"))
    assert opened.undrawn() == []
    assert opened.said == []
    assert opened.requests == [opened.url]


def test_hostile_results_run_nothing(browser, tmp_path: Path):
    for number in range(4):
        write_json(tmp_path / str(number) / "result.json", hostile(number, "failed" if number == 3 else "completed"))
    write_result(tmp_path / "plain", result({"strategy": "ia3", "seed": 9}))
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "0" / "run.log").symlink_to(tmp_path / "secret")
    (tmp_path / "1" / "run.log").write_text(f"{EVIL}\x1b[2J end of the log")
    os.mkfifo(tmp_path / "2" / "run.log")
    opened = Opened(browser, report(tmp_path))
    assert opened.said == []
    assert opened.requests == [opened.url]
    assert "a secret" not in (tmp_path / "analysis" / "report.html").read_text()
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("#table tbody tr").count() == 5
    assert "<script>" in opened.page.locator("#table tbody").inner_text()
    said = ""
    for row in opened.page.locator("#table tbody tr").all():
        row.click()
        said += opened.page.locator("#details").inner_text()
    assert "<img src=x onerror=window.hacked=1>" in said
    assert "end of the log" in said
    opened.settle()
    assert opened.page.locator("img").count() == 0
    assert opened.page.evaluate("window.hacked") is None
    assert opened.said == []
