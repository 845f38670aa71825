"""Serves the page on this machine until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sousa_bench.errors import UserError

HOST = "127.0.0.1"
MOST_BYTES = 500 * 2**20
"""Of an upload."""


class SizeLimit:
    """Refuses a request that says it is too large before any of it is read; one that doesn't say is cut by Gradio.

    Args:
        app: What answers the others (ASGI).
        most: Bytes.
    """

    def __init__(self, app: Any, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        said = dict(scope.get("headers") or []).get(b"content-length", b"0")
        if said.isdigit() and int(said) <= self.most:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 413, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"larger than %d MB" % (self.most // 2**20)})


def quiet_environment(folder: str) -> None:
    """What Gradio reads from the environment when it is imported: no word to its makers, uploads in ``folder``."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    for name in ("NO_PROXY", "no_proxy"):  # it asks its own address whether it is up
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST, "localhost"]))


def serve(
    place: Path,
    *,
    port: int | None = None,
    share: bool = False,
    browser: bool = True,
    metric: str | None = None,
    checkpoint: str | None = None,
    examples: Sequence[Path] = (),
) -> None:
    """Show a model's page and block until Ctrl-C or SIGTERM.

    Args:
        place: A package, a run's folder or a sweep.
        port: Of this machine; None is the first free one from 7860 on.
        share: Let Gradio's servers hand out a public address for it.
        browser: Open it in the browser.
        metric: What chooses the run of a sweep.
        checkpoint: Where the base weights are now, if they have moved.
        examples: Files that the page offers; without any, some are synthesised for SOUSA's rudiments.

    Raises:
        UserError: No such model or example, or the port is taken.
    """
    if port is not None and _taken(port):
        raise UserError(f"--port {port}: another program listens there; choose another, or leave it out")
    from sousa_bench.demo.example_clips import example_clips
    from sousa_bench.inference.listener import Listener, Windows
    from sousa_bench.inference.predictor import Predictor

    predictor = Predictor.open(place, metric=metric, checkpoint=checkpoint)
    listener = Listener(predictor, Windows.of(predictor, None, None), progress=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="sousa_bench_demo_") as folder:
        quiet_environment(folder)
        clips = example_clips(predictor.task, examples, Path(folder) / "examples")
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from sousa_bench.demo import web_page

        # Otherwise a page of the web whose name is made to lead here could read what this one answers.
        hosts = ["*"] if share else [HOST, "localhost"]
        shown = web_page.build(listener, share, clips)
        try:
            _, address, public = shown.launch(
                server_name=HOST,
                server_port=port,
                share=share,
                inbrowser=browser,
                prevent_thread_lock=True,
                quiet=True,
                ssr_mode=False,
                footer_links=[],
                enable_monitoring=False,
                max_file_size=MOST_BYTES,
                theme=web_page.theme(),
                app_kwargs={
                    "middleware": [
                        Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
                        Middleware(SizeLimit, most=MOST_BYTES),
                    ]
                },
            )
            if share and not public:
                print("no public address could be had from Gradio's servers: the page is here alone", file=sys.stderr)
            print(f"model: {predictor.name}\npage: {public or address}  (Ctrl-C ends it)", flush=True)
            signal.pause()
        except OSError as error:
            raise UserError(f"the page can't be served: {error}") from error
        finally:
            shown.close(verbose=False)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
