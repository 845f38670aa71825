"""PNG files of the figures: one headless browser draws them all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.analysis.plots import Plot

WIDTH = 1100
SCALE = 2
NO_BROWSER = (
    "no PNG files: kaleido needs Chrome or Chromium, and there is none. Install one (apt install chromium, or "
    "the command "
    "plotly_get_chrome), or set BROWSER_PATH; report.html has every plot without it."
)


def write_images(plots: Sequence[Plot], folder: Path) -> str:
    """Write ``<name>.png`` of every plot that has a figure.

    Returns:
        Why there are none, or not all; empty where all were written.
    """
    drawn = [plot for plot in plots if plot.figure is not None]
    if not drawn:
        return ""
    import kaleido  # costs 0.3 s, and only images need it
    from choreographer.errors import ChromeNotFoundError

    logging.getLogger("kaleido").setLevel(logging.ERROR)
    logging.getLogger("choreographer").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        {
            "fig": plot.figure,
            "path": folder / f"{plot.name}.png",
            "opts": {"format": "png", "width": WIDTH, "height": plot.figure.layout.height or 500, "scale": SCALE},
        }
        for plot in drawn
        if plot.figure is not None
    ]
    try:
        # Without MathJax: it would come from the network, and no label is a formula.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False, "n": 1})
    except ChromeNotFoundError:
        return NO_BROWSER
    except Exception as error:  # the browser is another program: whatever it dies of, the rest of the report stands
        return (
            f"not all PNG files could be drawn ({type(error).__name__}: {str(error)[:200]}); report.html has every plot"
        )
    return ""
