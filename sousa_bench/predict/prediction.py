"""What ``python -m sousa_bench.predict`` does once its command line is read."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sousa_bench.inference.answer import SCHEMA_VERSION, Answer
from sousa_bench.predict.audio_files import find_files
from sousa_bench.predict.show import Names, heading, lines

if TYPE_CHECKING:
    from sousa_bench.inference.listen import Listener


def predict(options: argparse.Namespace) -> int:
    """Answer for every file; the exit code is 1 where one failed.

    Args:
        options: See :func:`sousa_bench.predict.parser`.

    Raises:
        UserError: The run can't be opened, or the windows can't be.
    """
    files, problems = find_files(options.files)
    failed = [Answer(word, "error", reason=problem) for word, problem in problems.items()]
    if not files and not options.json:  # no model is loaded to say so
        return _print_table(iter(failed), Names(None, 0), options.top)
    listener = _listener(options)
    answers = itertools.chain(failed, map(listener.answer, files))
    if options.json:
        document, code = _document(listener, answers, options.top)
        print(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
        return code
    names = Names.of(files)
    print(f"Model: {listener.predictor.name} ({listener.predictor.place})\n{heading(names, options.top)}", flush=True)
    return _print_table(answers, names, options.top)


def _listener(options: argparse.Namespace) -> Listener:
    # Imported here: torch takes seconds, which a misspelt file name should not cost.
    from sousa_bench.inference.listen import Listener, Windows
    from sousa_bench.inference.predictor import Predictor, device_named

    device = device_named(options.device, options.threads)
    predictor = Predictor.open(options.run, metric=options.metric, device=device, checkpoint=options.checkpoint)
    return Listener(predictor, Windows.of(predictor, options.window, options.hop, options.beginning))


def _document(listener: Listener, answers: Iterable[Answer], top: int) -> tuple[dict[str, Any], int]:
    made = list(answers)
    predictor, windows = listener.predictor, listener.windows
    document = {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "name": predictor.name,
            "place": str(predictor.place),
            "sample_rate": predictor.sample_rate,
            "max_duration": predictor.max_duration,
            "labels": list(predictor.labels),
        },
        "settings": {"window": windows.size, "hop": windows.hop, "beginning": windows.beginning, "top": top},
        "files": [answer.record(top) for answer in made],
    }
    return document, int(any(answer.status == "error" for answer in made))


def _print_table(answers: Iterator[Answer], names: Names, top: int) -> int:
    code = 0
    for answer in answers:
        if answer.status == "error":
            code = 1
            print(f"error: {answer.file} {answer.reason}", file=sys.stderr, flush=True)
        else:
            print("\n".join(lines(answer, names, top)), flush=True)
    return code
