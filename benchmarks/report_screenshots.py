"""Pictures of the report on a sweep: ``python -m benchmarks.report_screenshots multirun/NAME docs/images``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from sousa_bench.analyze import main

VIEWS = {
    "report_light": (1300, 900, "light", "", ""),
    "report_dark": (1300, 900, "dark", "#runs", "htsat + lora, no aug"),
    "report_misheard": (1300, 560, "light", "#misheard", ""),
    "report_phone": (390, 844, "light", "", ""),
}
"""Width, height, theme, the section that is shown (none: the first screen), and the run that is clicked on."""


def shoot(sweep: Path, folder: Path) -> None:
    """Write a PNG a view into ``folder``; ``sweep`` is given relative to here, since the page names it."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as output:
        main([str(sweep), "--no-images", "--output-dir", output])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for name, (width, height, theme, section, clicked) in VIEWS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                page.goto((Path(output) / "report.html").as_uri())
                if clicked:
                    page.fill("#search", clicked)
                    page.locator("#table tbody tr").first.click()
                    page.locator("#reset").click()
                if section:
                    page.evaluate(f"document.querySelector('{section}').scrollIntoView()")
                page.wait_for_selector("body[data-idle=yes]")
                page.wait_for_timeout(500)
                page.screenshot(path=folder / f"{name}.png")
            browser.close()


if __name__ == "__main__":
    shoot(Path(sys.argv[1]), Path(sys.argv[2]))
