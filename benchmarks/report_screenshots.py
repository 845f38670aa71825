"""Pictures of a report over simulated results: ``python -m benchmarks.report_screenshots docs/images``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from sousa_bench.analyze import main
from tests.analysis.synthetic import write_sweep

VIEWS = {
    "report_light": (1300, 1000, "light", "#answer"),
    "report_dark": (1300, 1000, "dark", "#cost"),
    "report_phone": (390, 844, "light", "#accuracy"),
}


def shoot(folder: Path) -> None:
    """Write ``report_light.png``, ``report_dark.png`` and ``report_phone.png`` into ``folder``."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as temporary:
        sweep = write_sweep(Path(temporary) / "multirun")
        output = Path(temporary) / "comparison"
        main([str(sweep), "--no-images", "--output-dir", str(output)])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for name, (width, height, theme, section) in VIEWS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                page.goto((output / "report.html").as_uri())
                page.wait_for_selector("body[data-idle=yes]")
                if section != "#answer":
                    page.evaluate(f"document.querySelector('{section}').scrollIntoView()")
                    page.wait_for_timeout(300)
                page.screenshot(path=folder / f"{name}.png")
            browser.close()


if __name__ == "__main__":
    shoot(Path(sys.argv[1]))
