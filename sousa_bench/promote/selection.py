"""From finished runs to the next sweep: which combinations go on, and the overrides that ask for it. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from typing import Any

import pandas as pd

from sousa_bench.analysis.columns import lower_is_better, own_name
from sousa_bench.analysis.combinations import LIMITS, TRIALS
from sousa_bench.analysis.commands import of_its_sweep, with_defaults_of_then
from sousa_bench.analysis.factors import CHECKPOINT, OF_ONE_START, RATES, cohort_words, no_outcome
from sousa_bench.analysis.flatten import READS, method_node
from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.stats.folds import FOLD
from sousa_bench.analysis.study import Study, compare
from sousa_bench.analysis.table import collect
from sousa_bench.config import refit as refitting
from sousa_bench.config.distillation import KEY as TEACHER
from sousa_bench.config.distillation import RUN
from sousa_bench.config.init_from import KEY
from sousa_bench.config.overrides import combinations_override, in_quotes, quoted, split
from sousa_bench.errors import UserError
from sousa_bench.models.published import FROM_NOTHING
from sousa_bench.models.weight_files import default_variant
from sousa_bench.peft.method_sizes import declared_size
from sousa_bench.peft.options import is_adalora, takes_no_steps, trains_all
from sousa_bench.results.result import ADAPTER_FOLDER, EVALUATED, read_result
from sousa_bench.system.foreign import ForeignError, check_overrides

SEEDS = 3
# Where data lie: the same for a subset and the whole.
PLACES = ("data.root", "data.hub_id", "data.revision", "data.cache_dir", "data.cache_limit_gb", "data.workers")
BUDGET = "peft.budget"
GROUPS = {"model": "model", "strategy": "peft", "augmentation": "augmentation"}
FILTERS = {"data": "data", "weights.kind": "weights", "max_epochs": "max_epochs"}
"""What may tell runs apart that can't be ranked together, as the table has it → as ``--filter`` takes it."""

ALL_WEIGHTS = "peft=full"
GIVE_EPOCHS = {"trainer", "trainer.max_epochs", "experiment", "search"}

OF_THE_CLIPS = ("data", "augmentation", "metrics")
"""What a student has in common with its teacher: what is heard, and how it is judged."""


@dataclass
class Chosen:
    """A combination that goes on.

    Attributes:
        label: Its name in words.
        score: Mean of the metric over its runs.
        tested: The same of the test accuracy.
        rows: Its runs in the study's table, best first.
        overrides: Key → override as it was written for its best run, with Hydra's ``+`` or ``~``.
    """

    label: str
    score: float
    tested: float
    rows: list[int]
    overrides: dict[str, str]


def promotion(
    places: Sequence[Path],
    overrides: Sequence[str],
    *,
    top: int | None,
    metric: str,
    filters: Sequence[str],
    seeds: int | None,
    warm: bool,
    distil: bool,
    refit: bool,
    command: str,
    config_folder: Path | None = None,
) -> tuple[list[str], str]:
    """Choose combinations and make the command of the next sweep.

    Args:
        places: Sweeps, or folders with several.
        overrides: What the next sweep changes.
        top: How many combinations; None: all that can't be told from the best.
        metric: Validation metric that ranks.
        filters: ``KEY=VALUE`` of the runs to choose among.
        seeds: Number of seeds.
        warm: Whether each goes on from its best run's weights.
        distil: Whether the overrides are a student's, which learns from the best run on its clips.
        refit: Whether the best is trained again as it was, on the clips that chose it, too.
        command: The command that asks for this, for the record.
        config_folder: Another folder with choices, as the training's ``--config-dir``.

    Returns:
        Overrides of the training command, and what was chosen and left out, for the reader.

    Raises:
        UserError: Nothing is there, it isn't comparable, or the weights can't be gone on from.
    """
    new = dict(split(word) for word in overrides)
    _check(metric, filters, seeds, new)
    if distil:
        _check_student(new, warm)
    if refit:
        _check_refit(new, warm, seeds)
    pairs = [text.split("=", 1) for text in filters]
    study = compare(collect(places, [(key, value.split(",")) for key, value in pairs]), metric)
    metric = study.metric
    chosen, left_out, refusals = [], dict[str, None](), []
    for _, row in _picked(study, top, metric).iterrows():
        try:
            made, dropped = _chosen(study, row, metric, new, config_folder, student=distil, refit=refit)
        except ForeignError as error:
            refusals.append(f"Not promoted: {row['combination']}: {error}")
            continue
        chosen.append(made)
        left_out |= dict.fromkeys(dropped)
    if not chosen:
        raise UserError("\n".join(refusals))
    said = _refit(study, chosen[0], new) if refit else _no_smaller(study, chosen[0], new) if distil else []
    shared = {
        key: word
        for key, word in chosen[0].overrides.items()
        if all(each.overrides.get(key) == word for each in chosen)
    }
    rows = []
    for each in chosen:
        own = [word for key, word in each.overrides.items() if key not in shared]
        if len(chosen) > 1 and (removal := next((word for word in own if "=" not in word), None)):
            raise UserError(
                f"{removal}: not all of these combinations remove it; promote them one by one, with --filter"
            )
        rows.append([*own, *(_teacher(study, each) if distil else _origin(study, each, warm, new, seeds))])
    notes = _pin_all(study, chosen, rows)
    random = "random" in (new.get("weights"), new.get("model.weights"))
    method = [ALL_WEIGHTS] if distil and random and not {"peft", "search", "experiment"} & new.keys() else []
    words = [*shared.values(), *overrides, *method]
    if "seed" not in {*new, *shared} and not any(word.startswith("seed=") for row in rows for word in row):
        words.append("seed=" + ",".join(map(str, range(1, (seeds or SEEDS) + 1))))
    words += [f"lineage.command={in_quotes(command)}", *(rows[0] if len(rows) == 1 else [combinations_override(rows)])]
    how = "The teacher" if distil else "The best" if refit else f"Promoted: {len(chosen)}"
    text = [f"{how} of {len(study.combinations)} combinations, by {own_name(metric, study.task)}"]
    text += [f"  {each.score:.4f}  {each.label} ({len(each.rows)} run{'s'[: len(each.rows) > 1]})" for each in chosen]
    if left_out:
        text.append(f"Left out, since it limits or belongs to the earlier runs alone: {', '.join(left_out)}")
    if method:
        text.append(f"The student trains all its weights ({ALL_WEIGHTS}), since they begin at random")
    if distil and random and new["model"] not in FROM_NOTHING and not GIVE_EPOCHS & new.keys():
        text.append(
            "From random weights the default epochs and rate teach a student little of a few hundred clips; "
            "docs/promote.md, What a teacher was worth, has settings that taught one"
        )
    return words, "\n".join([*text, *said, *refusals, *notes])


def _check(metric: str, filters: Sequence[str], seeds: int | None, new: dict[str, str]) -> None:
    if not metric.startswith("val_"):
        raise UserError(
            f"--metric {metric}: choose by a validation metric, such as val_acc; a choice by the test clips would make "
            "the winners' test scores too good"
        )
    if wrong := next((text for text in filters if "=" not in text), None):
        raise UserError(f"--filter {wrong}: write KEY=VALUE, such as model=ast")
    if seeds is not None and "seed" in new:
        raise UserError(f"--seeds {seeds} and seed={new['seed']} say two things; leave out one")
    if key := next((key for key in new if key.startswith(("lineage", "hydra.sweeper")) or key == "init_from"), None):
        raise UserError(f"{key}: promote sets this itself{' with --warm' if key == 'init_from' else ''}; leave it out")


def _check_student(new: dict[str, str], warm: bool) -> None:
    if warm:
        raise UserError(
            "--distil and --warm: a student is another model than its teacher, and starts afresh; leave one"
        )
    if "model" not in new:
        raise UserError(
            "--distil: say which model the student is, such as --distil model=efficientat model.variant=mn01 "
            "weights=official"
        )
    if key := next((key for key in new if key in (TEACHER, RUN)), None):
        raise UserError(f"{key}: --distil sets this itself; leave it out")


def _check_refit(new: dict[str, str], warm: bool, seeds: int | None) -> None:
    if warm:
        raise UserError("--refit and --warm: a refit starts where the best run started; leave one")
    if seeds is not None or "," in new.get("seed", ""):
        raise UserError("--refit makes one model: choose its seed as seed=7, or leave it to be that of the best run")
    for key in new:
        of_no_outcome = key in (*PLACES, CHECKPOINT) or no_outcome(key) or of_its_sweep(key)
        if key not in ("search", "experiment") and of_no_outcome:
            continue
        raise UserError(
            f"{key}: --refit trains the best as it was, or the earlier scores would not be its own; leave it out "
            "(seed, sweep, logger, how the sweep runs and is watched, and where data and weights lie may be given)"
        )


def _picked(study: Study, top: int | None, metric: str) -> pd.DataFrame:
    """The rows of the study's combinations that go on, best first by the metric."""
    frame = study.combinations[study.combinations[metric].notna()]
    if EVALUATED in study.table:  # an evaluation is no run that was trained
        evaluated = study.table[EVALUATED].notna()
        frame = frame[[not evaluated.iloc[list(rows)].any() for rows in frame["rows"]]]
    if not len(frame):
        raise UserError("no completed run here; python -m sousa_bench.status tells why")
    if frame["cohort"].nunique() > 1:
        words = "; ".join(f"{name}: {what}" for name, what in cohort_words(study.table).items())
        first = study.table.iloc[frame["rows"].iloc[0][0]]
        known = {key: name for key, name in FILTERS.items() if key in study.table and study.table[key].nunique() > 1}
        such = next((f", such as --filter {name}={first[key]}" for key, name in known.items()), "")
        raise UserError(
            f"these runs can't be ranked together, since they differ in data, weights or epochs ({words}). Name one "
            f"sweep, or choose with --filter{such}"
        )
    if top is not None:
        return frame.head(top)
    if untested := int((frame["p_best"].isna() & ~frame["best_set"]).sum()):
        raise UserError(
            f"--undecided: {untested} of {len(frame)} combinations were not tested against the best one, so whether "
            "they can be told from it is not known (the report says why, under What this does not show); take --top K"
        )
    return frame[frame["best_set"]]


def _chosen(
    study: Study, row: Any, metric: str, new: dict[str, str], config_folder: Path | None, student: bool, refit: bool
) -> tuple[Chosen, list[str]]:
    """A combination with the overrides that its next run, or its student, keeps, and those that were left out.

    A refit keeps them all.
    """
    runs = study.table.iloc[list(row["rows"])]
    order = best_first(runs, metric, lower_is_better(metric, study.table)).index
    best = int(order[0])
    kept: dict[str, str] = {}
    dropped = []
    resolved = study.results.resolved[best]
    weights = resolved.get("model.weights") or runs.reindex(columns=["weights.kind"]).iloc[0, 0]
    was = {"model": row["model"], "peft": row["strategy"], "weights": weights, "model.weights": weights}
    others = {key for key, value in was.items() if new.get(key, value) != value}
    written: Sequence[str] = [word for word in study.results.overrides[best] if not of_its_sweep(split(word)[0])]
    check_overrides(written)
    if any(split(word)[0] == "experiment" for word in written):
        from sousa_bench.promote.experiment import spelled_out  # composes

        whole = read_result(Path(study.table["path"].iloc[best]))["resolved_config"]
        written = spelled_out(written, whole, config_folder)
    if "peft" not in new:
        written = with_defaults_of_then(written, row["strategy"], resolved.get(READS))
    for override in written:
        key = split(override)[0]
        if key in new or key == "seed" or of_its_sweep(key):
            continue
        if student and key.partition(".")[0] not in OF_THE_CLIPS:
            continue
        limit = key in LIMITS or override in TRIALS
        group = key.partition(".")[0]
        renewed = group in others if group in was else group in ("data", "augmentation") and group in new
        of_old_choice = renewed and key not in PLACES
        of_old_start = (key in RATES and bool(others)) or (key in OF_ONE_START and bool(others - {"peft"}))
        a_repeat = key == "data.fold" and not student  # as a seed is; a student is tested on its teacher's fold
        if not refit and (limit or of_old_choice or of_old_start or a_repeat or key == KEY):
            dropped.append(override)
        else:
            kept[key] = override
    _settle_size(kept, new, method_node(resolved))
    for column, group in GROUPS.items():
        if group not in kept and group not in new and not (student and group not in OF_THE_CLIPS):
            value = row[column]
            value = ("on" if value else "off") if column == "augmentation" else str(value)
            kept[group] = f"{group}={value}"
    for key in () if refit else LIMITS:  # those that a choice of trainer brings along
        if "trainer" in kept and key not in new and resolved.get(key) is not None:
            dropped.append(f"{key}={resolved[key]}")
            kept[key] = f"{key}=null"
    check_overrides(kept.values())
    kept = {key: kept[key] for key in sorted(kept, key=lambda key: (key not in GROUPS.values(), "." in key))}
    scores = float(row[metric]), float(row["test_acc"])
    return Chosen(str(row["combination"]), *scores, [int(number) for number in order], kept), dropped


def _refit(study: Study, chosen: Chosen, new: Mapping[str, str]) -> list[str]:
    """Make of a combination's overrides those of its refit; sentences about it for the reader."""
    runs, best = study.table.iloc[chosen.rows], study.results.resolved[chosen.rows[0]]
    method = method_node(best)
    if takes_no_steps(method):
        raise UserError(
            f"{chosen.label}: peft={method.get('name')} has no epochs and chooses its number on the validation clips, "
            "so that there is no refit of it; choose others with --filter strategy=…"
        )
    clips = "all" if FOLD in runs and runs[FOLD].nunique() > 1 else "val"
    known = runs.reindex(columns=["tested_epoch", "best_epoch", "seed"])
    tested, seeds = known["tested_epoch"].fillna(known["best_epoch"]), known["seed"].head(0 if "seed" in new else 1)
    for column, what in ((tested, "the epoch that was tested"), (seeds, "its seed")):
        if column.isna().any():
            place = _folder(study, chosen.rows[int(column.isna().argmax())])
            raise UserError(f"{place}: the result doesn't say {what}; run it again (force=true)")
    epochs = median_high(int(number) for number in tested)
    chosen.overrides |= {
        refitting.KEY: f"{refitting.KEY}={clips}",
        "trainer.max_epochs": f"trainer.max_epochs={epochs}",
        "trainer.tested_epoch": "trainer.tested_epoch=last",
        "trainer.early_stopping": "trainer.early_stopping=null",
    }
    if "seed" not in new:
        chosen.overrides["seed"] = f"seed={int(seeds.iloc[0])}"
    mean = f", mean of {len(runs)} runs" if len(runs) > 1 else ""
    return [
        f"Trained again on {refitting.CLIPS[clips]}, {epochs} epoch{'s'[: epochs > 1]}, and not tested. Its scores are "
        f"the earlier ones: {own_name('test_acc', study.task)} {chosen.tested:.4f}{mean}"
    ]


def _settle_size(kept: dict[str, str], new: Mapping[str, str], method: Mapping[str, Any]) -> None:
    """Let a new size take a budget's place, and an earlier size beside a budget be what its ratios start from."""
    size = declared_size(method)
    sizes = [f"peft.{key}" for key in (size.key, "target_r")] if size else []
    if any(key in new for key in sizes):
        kept.pop(BUDGET, None)
    if new.get(BUDGET, split(kept.get(BUDGET, ""))[1]) not in ("", "null"):
        kept |= {key: f"++{kept[key].lstrip('+')}" for key in sizes if key in kept}


def _origin(study: Study, chosen: Chosen, warm: bool, new: dict[str, str], seeds: int | None) -> list[str]:
    """Overrides that say which runs a combination comes from, and with ``warm`` which weights it goes on from."""
    folders = [quoted(_shown(_folder(study, row))) for row in chosen.rows]
    check_overrides(f"lineage.from={folder}" for folder in folders)
    words = [f"lineage.from=[{','.join(folders)}]"]
    if not warm:
        return words
    resolved = study.results.resolved[chosen.rows[0]]
    peft = method_node(resolved)
    if is_adalora(peft):
        raise UserError(
            f"{chosen.label}: AdaLoRA can't go on from trained weights, since its ranks are pruned: promote it without "
            "--warm, or choose others with --filter strategy=…"
        )
    best = _with_weights(study, chosen)
    fields = study.table.iloc[chosen.rows[0]]
    if fields.get("weights.kind") == "random" and not trains_all(peft) and "seed" not in new and seeds is None:
        words.append(f"seed={int(fields['seed'])}")  # other seeds have other base weights
    return [f"init_from={quoted(_shown(best))}", *words]


def _teacher(study: Study, chosen: Chosen) -> list[str]:
    """The override that says from which run a student learns: the best of a combination."""
    words = [f"{RUN}={quoted(_shown(_with_weights(study, chosen)))}"]
    check_overrides(words)
    return words


def _no_smaller(study: Study, chosen: Chosen, new: Mapping[str, str]) -> list[str]:
    """What to say of a student that is as large as its teacher."""
    resolved, weights = study.results.resolved[chosen.rows[0]], new.get("weights", "embedded")
    teacher = resolved.get("model.variant") or default_variant(str(resolved.get("model.weights")))
    student = new.get("model.variant") or default_variant(weights)
    if (new["model"], student) != (study.table["model"].iloc[chosen.rows[0]], teacher):
        return []
    return [
        f"The student is the same network as its teacher, {new['model']}'s variant {student}. A smaller one is another "
        "model.variant (with weights=random or weights=official) or another model: python -m sousa_bench.models"
    ]


def _with_weights(study: Study, chosen: Chosen) -> Path:
    """The folder of a combination's best run, whose trained weights are there."""
    best = _folder(study, chosen.rows[0])
    if not (best / ADAPTER_FOLDER).is_dir():
        raise UserError(f"{best}: the trained weights ({ADAPTER_FOLDER}/) are gone; run it again (force=true)")
    return best


def _pin_all(study: Study, chosen: Sequence[Chosen], rows: Sequence[list[str]]) -> list[str]:
    """Give each row a seed of its own where one has; a sentence about it for the reader."""
    pinned = [any(word.startswith("seed=") for word in row) for row in rows]
    if not any(pinned):
        return []
    for row, each, has in zip(rows, chosen, pinned, strict=True):
        if not has:
            row.append(f"seed={int(study.table['seed'].iloc[each.rows[0]])}")
    return [
        "One seed each, that of its best run, since random base weights follow from the seed; --seeds or seed= where "
        "every method trains all weights"
    ]


def _folder(study: Study, row: int) -> Path:
    return Path(study.table["path"].iloc[row]).parent


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    near = os.path.relpath(path.resolve(), Path.cwd())
    return str(path.resolve()) if near.startswith("..") else Path(near).as_posix()
