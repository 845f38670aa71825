"""The section on the clips that all mishear, on the page with their sound where the data are at hand."""

from __future__ import annotations

from sousa_bench.analysis.columns import Column
from sousa_bench.analysis.report.blocks import Block, Heading, Options, Table, Text
from sousa_bench.analysis.report.clip_sounds import MOST, RATE, SECONDS
from sousa_bench.analysis.study import Study


def misheard_by_all(study: Study, options: Options) -> list[Block]:
    """The clips that no combination, or hardly any, recognises, those first on whose wrong answer most runs agree."""
    found = study.misheard
    if not len(found.table):
        return []
    shown = found.table.head(MOST)
    keys = zip(shown["clip_set"], shown["clip"], strict=True)
    sounds = [options.sounds.addresses.get(key, "") for key in keys]
    hardly = len(found.table) - found.by_all
    more = f", and {hardly:,} more by at most one in ten" if hardly else ""
    lines = [
        f"Of {found.clips:,} test clips, {found.by_all:,} are recognised by no combination{more}. A combination "
        "mishears a clip where more than half of its runs do. Those come first on whose wrong answer most runs agree: "
        f"there two {study.task.nouns} may sound alike, or the label may be wrong. All runs that learnt something "
        "count, whatever the filters show.",
        *([f"{MOST} of {len(found.table):,} shown; all are in misheard_clips.csv."] if len(found.table) > MOST else []),
        *(_sound_words(options, sounds) if options.plots else []),
    ]
    columns = [
        Column("true_class", f"true {study.task.noun}", text=True),
        Column("heard_as", "most often heard as", text=True),
        Column(
            "heard_runs", "by runs", lambda row: f"{row['heard_runs']} of {row['runs']}", help="that heard just this"
        ),
        Column(
            "wrong_combinations",
            "misheard by",
            lambda row: f"{row['wrong_combinations']} of {row['combinations']}",
            help="combinations, with more than half of their runs",
        ),
        *([Column("data", "data", text=True)] if shown["data"].nunique() > 1 else []),
        *([Column("group", study.task.group, text=True)] if (shown["group"] != "").any() else []),
        Column("clip", "clip", text=True),
    ]
    return [
        Heading("Clips that all mishear", short="Misheard"),
        Text(lines),
        Table(columns, shown.to_dict("records"), sounds if any(sounds) else ()),
    ]


def _sound_words(options: Options, sounds: list[str]) -> list[str]:
    if any(sounds):
        return [f"report.html holds their sound: the first {SECONDS:g} seconds at {RATE // 1000} kHz."]
    if options.sounds.problems:
        return ["report.html does not hold their sound: the folder that --data names has other clips."]
    return ["report.html does not hold their sound; with the option --data and the clips' folder it does."]
