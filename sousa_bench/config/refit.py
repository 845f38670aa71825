"""``data.refit``: a run that trains on its validation clips, too, and repeats the scores of the runs it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from sousa_bench.config.run_config import value_at
from sousa_bench.errors import ConfigError
from sousa_bench.peft.options import plain, takes_no_steps
from sousa_bench.results.confidence import Confidence
from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import ResultError, is_refit, read_result
from sousa_bench.system.number_checks import is_number

KEY = "data.refit"
RUNS = "lineage.from"
CLIPS = {"val": "training and validation clips", "all": "all clips"}


def check(config: Mapping[str, Any]) -> None:
    """Hold a composed config, whose data have been identified, against the runs whose scores it repeats.

    Raises:
        ConfigError: There are none, one is not completed or a refit itself, the first was trained on other data, or the
            config needs validation clips.
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
    first = _earlier(config)[0]
    from sousa_bench import data  # pandas: half a second of every command, and this is for refits

    then = value_at(first, "data.fingerprint")
    if then is not None and data.fingerprint({**plain(config["data"]), "refit": None}) != then:
        raise ConfigError(
            f"{KEY}={clips}: the data are others than those of {first.get('experiment_id')}, whose scores this run "
            "would repeat; run that one again first"
        )


def repeated(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a refit's result repeats of the runs it comes from; None of a run that is no refit.

    Returns:
        ``metrics``: the mean of each; ``confidence``, where all have it: the highest threshold, and none where one has
        none; ``runs``: how many they are.

    Raises:
        ConfigError: See :func:`check`.
    """
    if value_at(config, KEY) is None:
        return None
    runs = _earlier(config)
    metrics = [run["metrics"] for run in runs]
    shared = [key for key in metrics[0] if all(is_number(each.get(key)) for each in metrics)]
    made: dict[str, Any] = {"metrics": {key: fmean(each[key] for each in metrics) for key in shared}, "runs": len(runs)}
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
