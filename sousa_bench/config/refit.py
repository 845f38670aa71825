"""``data.refit``: a run that trains on its validation clips, too, and repeats the scores of the runs it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from sousa_bench.config.fingerprint import digest, outcome_config
from sousa_bench.config.run_config import RunConfig, value_at, values_of
from sousa_bench.errors import ConfigError
from sousa_bench.peft.options import takes_no_steps
from sousa_bench.results.confidence import Confidence
from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import ResultError, is_refit, read_result
from sousa_bench.system.foreign import check_overrides, clean
from sousa_bench.system.number_checks import is_number

KEY = "data.refit"
RUNS = "lineage.from"
CLIPS = {"val": "training and validation clips", "all": "all clips"}
FOLD = "data.fold"
OWN = (KEY, FOLD, "seed", "trainer.max_epochs", "trainer.tested_epoch", "trainer.early_stopping")
"""What may differ from the runs whose scores a refit repeats: all else that decides an outcome is as in each."""
ADDRESS = ("hub_id", "revision")
"""Keys of the data that may differ where what lies there is the same."""
BY_CONTENT = ("data_content", "init_from", "teacher.run", "model.checkpoint")


def check(config: Mapping[str, Any], source: RunConfig) -> None:
    """Hold a config, whose data have been identified, against the runs whose scores it repeats.

    Args:
        config: Its values.
        source: The composed one.

    Raises:
        ConfigError: There are none, one is not completed, a refit itself or was trained otherwise, or the config needs
            validation clips.
        DataError: The data of one can't be identified.
        ForeignError: A result says what would do more than give a value.
    """
    if (clips := value_at(config, KEY)) is None:
        return
    if takes_no_steps(config["peft"]):
        raise ConfigError(
            f"{KEY}={clips}: peft={value_at(config, 'peft.name')} has no epochs and chooses its number on the "
            "validation clips, which would be none; leave it out"
        )
    if (rule := value_at(config, "trainer.tested_epoch")) != "last":
        raise ConfigError(
            f"{KEY}={clips} can't be with trainer.tested_epoch={rule}: no validation clips choose an epoch; take "
            "trainer.tested_epoch=last"
        )
    for run in _earlier(config):
        if difference := _difference(source, run):
            raise ConfigError(
                f"{KEY}={clips}: {clean(str(run.get('experiment_id')))} was trained otherwise ({difference}), so that "
                f"its scores can't be this run's; let promote --refit set {RUNS}, and where a default or the data have "
                "changed since, run the sweep again first"
            )


def _difference(source: RunConfig, run: Mapping[str, Any]) -> str | None:
    """In what a config, but for :data:`OWN`, is another than a run's by its fingerprint; None where it is that."""
    then = run.get("resolved_config") or {}
    config = source.whole().copy()
    for key in OWN:
        if (value := value_at(then, key)) != value_at(source.values, key):
            check_overrides([f"{key}={value}"])
            OmegaConf.update(config, key, value, force_add=True)
    outcome = outcome_config(config)
    outcome["data"] |= {key: value_at(then, f"data.{key}") for key in ADDRESS if key in outcome["data"]}
    if digest(outcome) == run.get("fingerprint"):
        return None
    found = [
        f"{key}={clean(str(value_at(then, key)))[:80]} and not {clean(str(value))[:80]}"
        for key, value in _leaves(outcome)
        if key not in BY_CONTENT and value != value_at(then, key)
    ]
    from sousa_bench import data  # pandas: half a second of every command, and this is for refits

    same = data.fingerprint(values_of(config)["data"]) == value_at(run, "data.fingerprint")
    return ", ".join([*found[:3], *([] if same else ["on other data"])]) or "from other weights"


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of plain containers by their keys with dots."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def repeated(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a refit's result repeats of the runs it comes from; None of a run that is no refit.

    Returns:
        ``metrics``: the mean of each, over folds where there are folds, each averaged over its seeds first;
        ``confidence``, where all have it: the highest threshold, and none where one has none; ``runs``: how many.

    Raises:
        ConfigError: See :func:`check`.
    """
    if value_at(config, KEY) is None:
        return None
    runs = _earlier(config)
    folds: dict[Any, list[dict[str, Any]]] = {}
    for run in runs:
        folds.setdefault(value_at(run, f"resolved_config.{FOLD}"), []).append(run["metrics"])
    shared = [key for key in runs[0]["metrics"] if all(is_number(run["metrics"].get(key)) for run in runs)]
    means = {key: fmean(fmean(each[key] for each in fold) for fold in folds.values()) for key in shared}
    made: dict[str, Any] = {"metrics": means, "runs": len(runs)}
    blocks = [block for run in runs if (block := Confidence.of(run, run.get("experiment_id"))) is not None]
    if len(blocks) == len(runs):
        thresholds = [block.threshold for block in blocks if block.threshold is not None]
        threshold = max(thresholds) if len(thresholds) == len(blocks) else None
        made["confidence"] = {"target": blocks[0].target, "threshold": threshold}
    return made


def notice(config: Mapping[str, Any], runs: int) -> str:
    """What a refit's result says of its scores, as a warning."""
    whose = "those of the run that it comes from" if runs == 1 else f"means of the {runs} runs that it comes from"
    return f"trained again on {CLIPS[str(value_at(config, KEY))]} and not tested: its scores are {whose}"


def _earlier(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results of the runs that a refit comes from, the best first."""
    clips, places = value_at(config, KEY), value_at(config, RUNS)
    if not places:
        raise ConfigError(
            f"{KEY}={clips}: which runs' scores this one repeats isn't said; let python -m sousa_bench.promote SWEEP "
            "--refit start it"
        )
    made = []
    for place in map(str, places):
        try:
            result = read_result(Path(place).expanduser())
        except ResultError as error:
            raise ConfigError(f"{KEY}={clips}: a run whose scores this one repeats: {error}") from error
        metrics = result.get("metrics") or {}
        if result["status"] != "completed" or metrics.get(ranking(metrics, "test")) is None:
            raise ConfigError(f"{RUNS}: {place} is {result['status']}, and a refit repeats scores; finish it first")
        if is_refit(result):
            raise ConfigError(f"{RUNS}: {place} is a refit itself, whose scores are those of other runs; name these")
        made.append(result)
    return made
