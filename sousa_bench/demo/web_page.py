"""The page: record or upload, and see waveform, spectrogram, class and probabilities."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import Font

from sousa_bench.analysis.tested_model import about_model
from sousa_bench.data.decode import BadClip
from sousa_bench.data.saved_task import is_sousa
from sousa_bench.demo.picture import Sound, drawing
from sousa_bench.inference.answer import LIKELY, STATUS_TEXT, TOP, Answer, percent, stretch_text
from sousa_bench.inference.listener import Listener

MARK = "✓"
KEPT_SECONDS = 600
"""Uploads older than this are deleted while the page runs; all of them when it ends."""


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the fonts of the user's machine: nothing is fetched for it."""
    sans = [Font("system-ui"), Font("sans-serif")]
    return gr.themes.Base(font=sans, font_mono=[Font("ui-monospace"), Font("monospace")])


def build(listener: Listener, shared: bool = False, examples: Mapping[str, Path] | None = None) -> gr.Blocks:
    """The page for a model.

    Args:
        listener: The model, and how recordings are cut.
        shared: Whether it has a public address.
        examples: Clips to try, by name.
    """
    place = "What is played goes through Gradio's servers." if shared else "Nothing leaves this machine."
    predictor = listener.predictor
    task = predictor.task
    asked = f"Which {task.nouns} are heard" if task.several else f"Which {task.noun} is this"
    named = f"{'drum ' if is_sousa(task) else ''}{task.nouns}"
    with gr.Blocks(
        title=named.capitalize(), analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.Markdown(
            f"# {asked}?\nModel `{predictor.name}`: {len(predictor.labels)} {named}, clips of up "
            f"to {predictor.max_duration:g} s; a longer recording is heard in windows. {place}"
        )
        about = [about_model(predictor.run, predictor.description, task)]
        if predictor.confidence is not None:
            about.append(predictor.confidence.text)
        gr.HTML(f"<p>{html.escape(' '.join(about))}</p>", elem_id="about")
        with gr.Row():
            with gr.Column():
                audio = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Record or upload",
                    elem_id="audio",
                    buttons=["download"],
                )
                with gr.Row(elem_id="examples", visible=bool(examples)):
                    buttons = {
                        gr.Button(name, size="sm", min_width=120): file for name, file in (examples or {}).items()
                    }
                word = gr.HTML(elem_id="word")
            # Of several labels the most probable one is no headline: none may be accepted, or more than it.
            bars = f"{task.nouns}, {MARK}: probability above {percent(LIKELY)}" if task.several else task.noun
            label = gr.Label(
                num_top_classes=None if task.several else TOP,
                label=bars[0].upper() + bars[1:],
                show_heading=not task.several,
                elem_id="answer",
            )
        picture = gr.HTML(elem_id="picture")

        def respond(path: str | None) -> tuple[str, Any, str]:
            return answer(listener, path)

        for button, file in buttons.items():
            button.click(_same(str(file)), None, audio, api_visibility="private")
        audio.change(respond, audio, [word, label, picture], api_visibility="private")
    return page


def _same(value: str) -> Callable[[], str]:
    return lambda: value


def answer(listener: Listener, path: str | None) -> tuple[str, dict[str, float] | None, str]:
    """Text, probabilities of the best classes, picture; all empty without a recording.

    Where a clip may have several labels, all that are accepted are among the classes, with a mark.
    """
    if path is None:
        return "", None, ""
    found = listener.answer(Path(path))
    marks = f"{MARK} " if found.task.several else ""
    said = [item["name"] for item in found.accepted]
    chances = {
        f"{marks if item['name'] in said else ''}{item['name']}": float(item["probability"])
        for item in found.best(max(TOP, len(said)))
    }
    return _text(found), chances or None, _picture(listener, Path(path), found)


def _text(found: Answer) -> str:
    record = found.record()
    if found.status == "ok":
        said = (
            f"<strong>{html.escape(item['name'])}</strong>, {percent(item['probability'])}"
            f"{' (not confident)' if item['confident'] is False else ''}"
            for item in found.accepted
        )
        text = "; ".join(said)
    elif found.status == "error":
        text = f"<strong>Error</strong>: {html.escape(f'{Path(found.file).name} {found.reason}')}"
    else:
        text = f"<strong>{STATUS_TEXT[found.status].capitalize()}</strong>: {html.escape(found.reason or '')}"
    lines = [f'<p data-status="{found.status}">{text}</p>']
    lines += [
        f"<div>{': '.join(map(html.escape, stretch_text(part, found.task)))}</div>" for part in record["timeline"]
    ]
    return "".join(lines + [f"<div>({html.escape(note)})</div>" for note in found.notes])


def _picture(listener: Listener, path: Path, found: Answer) -> str:
    try:
        sound = Sound.read(path, listener.predictor)
        return drawing(listener.predictor, sound, found.record()["timeline"])
    except BadClip:  # the text says what is wrong
        return ""
