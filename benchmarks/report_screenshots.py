"""Pictures of a report over simulated results: ``python -m benchmarks.report_screenshots docs/images``."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from sousa_bench.analyze import main
from tests.analysis.synthetic import write_sweep

VIEWS = {
    "report_light": (1300, 900, "light", ""),
    "report_dark": (1300, 900, "dark", "htsat + lora, aug"),
    "report_phone": (390, 844, "light", ""),
}
"""Width, height, theme, and the run that is clicked on; none: the first screen."""


def shoot(folder: Path) -> None:
    """Write ``report_light.png``, ``report_dark.png`` and ``report_phone.png`` into ``folder``."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    folder = folder.resolve()
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):  # so that the page names no path here
        sweep = write_sweep(Path("multirun"))
        output = Path(temporary) / "comparison"
        main([str(sweep), "--no-images", "--output-dir", str(output)])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for name, (width, height, theme, clicked) in VIEWS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                page.goto((output / "report.html").as_uri())
                if clicked:
                    page.fill("#search", clicked)
                    page.locator("#table tbody tr").first.click()
                    page.locator("#reset").click()
                    page.evaluate("document.querySelector('#runs').scrollIntoView()")
                page.wait_for_selector("body[data-idle=yes]")
                page.wait_for_timeout(500)
                page.screenshot(path=folder / f"{name}.png")
            browser.close()


if __name__ == "__main__":
    shoot(Path(sys.argv[1]))
