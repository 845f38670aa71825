"""Folders of synthetic results with known true effects, written in the project's own schema."""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sousa_bench.data.rudiments import FAMILIES, RUDIMENTS
from sousa_bench.results.result import PREDICTIONS_FILE, write_json, write_result

# Overrides of a result that would execute code or read files where a command takes them.
FOREIGN = (
    "+peft._target_=os.system",
    "+x={_target_:os.system}",
    r'''+x="${oc.create:'{\"_targ\\x65t_\": os.system}'}"''',
    r"data.root=$\{oc.env:HF_TOKEN\}",
    "model=../../elsewhere/file",
    "+model@other=/elsewhere/file",
    "trainer=[default,../file]",
)
MODELS = ("ast", "htsat", "beats", "efficientat")
STRATEGIES = ("lora", "adalora", "ia3")
TOTAL_PARAMS = {"ast": 86_219_560, "htsat": 28_500_000, "beats": 90_300_000, "efficientat": 4_900_000}
TRAINABLE_SHARE = {"lora": 0.0051, "adalora": 0.0077, "ia3": 0.0009}
TIERS = ("beginner", "intermediate", "advanced", "professional")
SOUNDFONTS = ("marching_studio", "practice_pad", "concert_hall", "lofi_kit")
BY_FAMILY = np.array([list(dict.fromkeys(FAMILIES.values())).index(FAMILIES[slug]) for slug in RUDIMENTS])


@dataclass
class Truth:
    """What the simulated runs really differ in, on the logit scale of a clip's being recognised."""

    base: float = 1.4
    model: dict[str, float] = field(
        default_factory=lambda: {"ast": 0.35, "htsat": 0.1, "beats": 0.55, "efficientat": -0.25}
    )
    strategy: dict[str, float] = field(default_factory=lambda: {"lora": 0.2, "adalora": 0.15, "ia3": -0.3})
    augmentation: float = 0.3
    player: float = 0.7
    player_model: float = 0.25
    seed: float = 0.05


@dataclass
class Clips:
    """The test clips: player, label, tier, tempo and soundfont of each."""

    sample_id: np.ndarray
    player: np.ndarray
    label: np.ndarray
    skill_tier: np.ndarray
    tempo_bpm: np.ndarray
    soundfont: np.ndarray

    @staticmethod
    def make(players: int = 19, per_player: int | np.ndarray = 60, seed: int = 0) -> Clips:
        rng = np.random.default_rng(seed)
        player = np.repeat(np.arange(players), per_player)
        count = len(player)
        return Clips(
            np.array([f"clip_{index:06d}" for index in range(count)]),
            np.array([f"player_{index:03d}" for index in player]),
            (np.arange(count) + player) % len(RUDIMENTS),
            np.array(TIERS)[player % len(TIERS)],
            rng.integers(60, 181, count).astype(float),
            np.array(SOUNDFONTS)[rng.integers(0, len(SOUNDFONTS), count)],
        )

    def cut(self, there: np.ndarray) -> Clips:
        """The clips ``there`` (numbers or a mask)."""
        return Clips(*(getattr(self, name)[there] for name in Clips.__dataclass_fields__))

    @cached_property
    def columns(self) -> dict[str, pa.Array]:
        """What a predictions file says of the clips themselves."""
        return {
            "sample_id": pa.array(self.sample_id),
            "player": pa.array(self.player),
            "label": pa.array(self.label.astype(np.int64)),
            "rudiment": pa.array(np.array(RUDIMENTS)[self.label]),
            "skill_tier": pa.array(self.skill_tier),
            "tempo_bpm": pa.array(self.tempo_bpm),
            "soundfont": pa.array(self.soundfont),
        }


def predict(clips: Clips, chance: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes (mistakes stay mostly within the family) and logits (clips, 40)."""
    right = rng.random(len(chance)) < chance
    predicted = clips.label.copy()
    for index in np.flatnonzero(~right):
        family = np.flatnonzero(BY_FAMILY[clips.label[index]] == BY_FAMILY)
        pool = family if rng.random() < 0.8 else np.arange(len(RUDIMENTS))
        predicted[index] = rng.choice(pool[pool != clips.label[index]])
    logits = rng.normal(0, 1, (len(chance), len(RUDIMENTS))).astype(np.float32)
    logits[np.arange(len(chance)), predicted] += 6
    return predicted, logits


def write_predictions(path: Path, clips: Clips, predicted: np.ndarray, logits: np.ndarray | None = None) -> None:
    columns = clips.columns | {"predicted": predicted.astype(np.int64)}
    if logits is not None:
        columns["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    pq.write_table(pa.table(columns), path)


def scores(label: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, float]]:
    per_class = {}
    for index, slug in enumerate(RUDIMENTS):
        hit = float(((label == index) & (predicted == index)).sum())
        precision = hit / max(1, (predicted == index).sum())
        recall = hit / max(1, (label == index).sum())
        f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
        support = int((label == index).sum())
        per_class[slug] = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    return per_class


def history(accuracy: float, epochs: int, rng: np.random.Generator) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, epochs + 1):
        reached = accuracy * (1 - np.exp(-epoch / (epochs / 4))) + rng.normal(0, 0.008)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": 3.7 * np.exp(-epoch / (epochs / 3)) + 0.15 + abs(rng.normal(0, 0.02)),
                "val_loss": 3.7 * np.exp(-epoch / (epochs / 3)) + 0.4 + abs(rng.normal(0, 0.03)),
                "val_acc": float(np.clip(reached, 0, 1)),
                "val_f1_macro": float(np.clip(reached - 0.01, 0, 1)),
                "val_balanced_acc": float(np.clip(reached - 0.005, 0, 1)),
                "learning_rate": 1e-3 * (1 - epoch / (epochs + 1)),
                "seconds": 62.0 + rng.normal(0, 2),
            }
        )
    return rows


def result(
    config: dict[str, Any],
    accuracy: float = 0.8,
    f1: float = 0.79,
    status: str = "completed",
    when: datetime | None = None,
    rng: np.random.Generator | None = None,
    per_class: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    **blocks: Any,
) -> dict[str, Any]:
    """A whole result of the schema for a flat ``config``; ``blocks`` replace top-level blocks."""
    rng = rng or np.random.default_rng(0)
    config = {
        "model": "ast",
        "strategy": "lora",
        "augmentation": True,
        "data": "small",
        "max_epochs": 20,
        "seed": 42,
    } | config
    total = TOTAL_PARAMS.get(config["model"], 10_000_000)
    rank = float((extra or {}).get("peft.r", 8))
    trainable = int(total * TRAINABLE_SHARE.get(config["strategy"], 0.01) * rank / 8)
    epochs = history(accuracy, config["max_epochs"], rng)
    seconds = total / 4e4 * (1.3 if config["strategy"] == "adalora" else 1.0)
    best = int(np.argmax([row["val_acc"] for row in epochs]))
    identity = {**config, **(extra or {})}
    digest = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()
    choice = "on" if config["augmentation"] else "off"
    overrides = [
        f"model={config['model']}",
        f"peft={config['strategy']}",
        f"augmentation={choice}",
        f"data={config['data']}",
        f"trainer.max_epochs={config['max_epochs']}",
        f"seed={config['seed']}",
        *(f"{key}={value}" for key, value in (extra or {}).items()),
    ]
    name = f"{config['model']}_{config['strategy']}_{choice}_{config['data']}"
    made = {
        "experiment_id": f"{name}_s{config['seed']}_{digest[:8]}",
        "config": {**config, **(extra or {})},
        "metrics": {
            "val_acc": epochs[best]["val_acc"],
            "val_f1_macro": epochs[best]["val_f1_macro"],
            "test_acc": accuracy,
            "test_f1_macro": f1,
            "test_top5_acc": min(1.0, accuracy + 0.1),
            "test_balanced_acc": accuracy - 0.003,
            "test_loss": 1.9 * (1 - accuracy),
            "best_epoch": best + 1,
            "final_train_loss": epochs[-1]["train_loss"],
            "final_val_loss": epochs[-1]["val_loss"],
        },
        "efficiency": {
            "total_params": total,
            "trainable_params": trainable,
            "param_efficiency": trainable / total,
            "training_time_seconds": seconds,
            "avg_epoch_time": seconds / config["max_epochs"],
            "peak_memory_bytes": int(total * 42 + 1.1e9),
            "samples_per_second": 4e9 / total,
            "epochs": config["max_epochs"],
        },
        "status": status,
        "error": None,
        "timestamp": (when or datetime(2026, 2, 1, 10, 30)).isoformat(),
        "git_commit": "abc123def",
        "fingerprint": digest,
        "overrides": overrides,
        "resolved_config": {
            "model": {"name": config["model"], "_target_": f"sousa_bench.models.{config['model']}", "width": total},
            "peft": {
                "name": config["strategy"],
                "learning_rate": 0.001 if config["strategy"] != "ia3" else 0.005,
                **{key[5:]: value for key, value in (extra or {}).items() if key.startswith("peft.")},
            },
            "augmentation": {"name": choice},
            "data": {"name": config["data"]},
            "trainer": {"max_epochs": config["max_epochs"], "batch_size": 16, "early_stopping": None},
            "seed": config["seed"],
        },
        "sweep": {"name": "2026-02-01/10-30-00", "folder": "multirun/2026-02-01/10-30-00", "index": 1, "total": 24},
        "command": "python -m sousa_bench.train " + " ".join(overrides),
        "environment": {
            "python": "3.11.9",
            "torch": "2.11.0",
            "device": "NVIDIA H100",
            "threads": 16,
            "precision": "bf16",
        },
        "process": {"host": "node1", "pid": 4242, "start_time": 1.0, "slurm_job_id": None},
        "weights": {
            "kind": "official",
            "origin": f"{config['model']}.pt",
            "sha256": hashlib.sha256(config["model"].encode()).hexdigest(),
        },
        "data": {
            "source": "sousa",
            "fingerprint": "d" * 64,
            "test_fingerprint": "e" * 64,
            "counts": {"train": 8000, "val": 1000, "test": 1140},
        },
        "parameters": {
            "backbone": total - trainable,
            "adapter": trainable - 3000,
            "head": 3000,
            "total": total,
            "trainable": trainable,
        },
        "history": epochs,
        "phases": {"data": 3.0, "weights": 1.5, "peft": 0.2, "fit": seconds, "test": 11.0},
        "peft": {},
        "per_class": per_class or {},
        "failure": None,
        "warnings": [],
        "files": {"predictions": PREDICTIONS_FILE, "adapter": "adapter", "log": "run.log"},
    }
    if status != "completed":
        made["metrics"] = dict.fromkeys(made["metrics"])
        made["history"] = epochs[:3] if status == "running" else []
        made["error"] = None if status == "running" else "CUDA out of memory. Tried to allocate 2.00 GiB"
        if status != "running":
            made["failure"] = {
                "type": "OutOfMemoryError",
                "message": made["error"],
                "phase": "fit",
                "cause": "oom",
                "log": "error.log",
            }
        made["files"] = {}
    return made | blocks


def fold_result(config: dict[str, Any], fold: int, folds: int, **more: Any) -> dict[str, Any]:
    """A result of fold ``fold`` (from 1); ``more`` as for ``result``."""
    name = f"{fold}/{folds}"
    data = {"fingerprint": f"train{fold}", "test_fingerprint": f"test{fold}", "fold": name}
    made = result(config, extra={"data.fold": name}, data=data, **more)
    made["resolved_config"]["data"]["fold"] = name
    return made


def write_sweep(
    root: Path,
    models: tuple[str, ...] = MODELS,
    strategies: tuple[str, ...] = STRATEGIES,
    augmentations: tuple[bool, ...] = (True, False),
    seeds: tuple[int, ...] = (42,),
    extra: dict[str, tuple[Any, ...]] | None = None,
    players: int = 19,
    per_player: int = 60,
    predictions: bool = True,
    statuses: dict[int, str] | None = None,
    missing: tuple[int, ...] = (),
    truth: Truth | None = None,
    seed: int = 1,
    max_epochs: int = 20,
    manifest: bool = True,
    data: str = "",
) -> Path:
    """Write a sweep below ``root`` and return its folder.

    ``statuses`` gives runs (by number from 0) another status; ``missing`` ones are planned but have no result.
    ``data`` names another data set than the usual one, with clips and players of its own.
    """
    rng = np.random.default_rng(seed)
    truth = truth or Truth()
    clips = Clips.make(players, per_player)
    number_of = np.unique(clips.player, return_inverse=True)[1]
    if data:
        clips.player = np.array([f"{data}_{name}" for name in clips.player])
    talent = rng.normal(0, truth.player, players)
    taste = {model: rng.normal(0, truth.player_model, players) for model in models}
    hard = rng.normal(0, 0.4, len(clips.label))
    folder = root / "2026-02-01" / "10-30-00"
    folder.mkdir(parents=True, exist_ok=True)
    keys = list(extra or {})
    jobs = []
    runs = itertools.product(models, strategies, augmentations, *(extra or {}).values(), seeds)
    for index, (model, strategy, augmentation, *values, run_seed) in enumerate(runs):
        more = dict(zip(keys, values, strict=True))
        status = (statuses or {}).get(index, "completed")
        logit = (
            truth.base
            + truth.model.get(model, 0.0)
            + truth.strategy.get(strategy, 0.0)
            + truth.augmentation * augmentation
            + 0.05 * np.log2(float(more.get("peft.r", 8)) / 8)
            + rng.normal(0, truth.seed)
        )
        chance = 1 / (1 + np.exp(-(logit + talent[number_of] + taste[model][number_of] + hard)))
        predicted, logits = predict(clips, chance, rng)
        per_class = scores(clips.label, predicted)
        made = result(
            {
                "model": model,
                "strategy": strategy,
                "augmentation": augmentation,
                "seed": run_seed,
                "max_epochs": max_epochs,
                **({"data": data} if data else {}),
            },
            accuracy=float((predicted == clips.label).mean()),
            f1=float(np.mean([row["f1"] for row in per_class.values()])),
            status=status,
            when=datetime(2026, 2, 1, 10, 30) + timedelta(minutes=index),
            rng=rng,
            per_class=per_class if status == "completed" else {},
            extra=more,
        )
        if data:
            made["data"] |= {"fingerprint": f"{data} all", "test_fingerprint": f"{data} test"}
        if not predictions:
            made["files"] = {}
        run_folder = folder / made["experiment_id"]
        jobs.append(
            {
                "index": index + 1,
                "fingerprint": made["fingerprint"],
                "overrides": made["overrides"],
                "folder": run_folder.name,
                "status": "pending",
                "result": None,
            }
        )
        if index in missing:
            continue
        write_result(run_folder, made)
        if predictions and status == "completed":
            write_predictions(run_folder / PREDICTIONS_FILE, clips, predicted, logits)
        if status == "running":
            write_json(
                run_folder / "progress.json",
                {"phase": "fit", "epoch": 3, "max_epochs": max_epochs, "step": 120, "updated": time.time()},
            )
    if manifest:
        write_json(
            folder / "sweep.json",
            {
                "schema_version": 1,
                "name": "2026-02-01/10-30-00",
                "created": "2026-02-01T10:30:00",
                "folder": str(folder),
                "jobs": jobs,
            },
        )
    return folder


def write_folds(
    root: Path,
    combinations: tuple[tuple[str, str, bool], ...] = (("ast", "lora", True), ("ast", "ia3", True)),
    folds: int = 5,
    players: int = 20,
    seeds: tuple[int, ...] = (1,),
    per_player: int = 20,
    right: Any = None,
    missing: tuple[tuple[int, int], ...] = (),
    chance: dict[str, float] | None = None,
) -> Path:
    """Write a cross-validation by player below ``root`` and return its folder; player ``p`` is in fold ``p % folds``.

    ``missing`` names runs without a result as (number of the combination, fold from 1). ``right``, called with
    (combination, fold from 1, seed, clips), says which clips of the fold a run recognises; by default a clip is
    recognised with the probability that ``chance`` gives its strategy.
    """
    rng = np.random.default_rng(11)
    every = Clips.make(players, per_player)
    number_of = np.unique(every.player, return_inverse=True)[1]
    jobs = []
    folder = root / "cv"
    for number, (model, strategy, augmentation) in enumerate(combinations):
        for fold, seed in itertools.product(range(1, folds + 1), seeds):
            there = number_of % folds == fold - 1
            clips = every.cut(there)
            hit = (
                right(number, fold, seed, clips)
                if right
                else rng.random(there.sum()) < (chance or {}).get(strategy, 0.8)
            )
            predicted = np.where(hit, clips.label, (clips.label + 1) % len(RUDIMENTS))
            config = {"model": model, "strategy": strategy, "augmentation": augmentation, "seed": seed}
            made = fold_result(config, fold, folds, accuracy=float(hit.mean()), rng=rng)
            place = folder / made["experiment_id"]
            jobs.append({"index": len(jobs) + 1, "fingerprint": made["fingerprint"], "overrides": made["overrides"],
                         "folder": place.name, "status": "pending"})  # fmt: skip
            if (number, fold) not in missing:
                write_result(place, made)
                write_predictions(place / PREDICTIONS_FILE, clips, predicted)
    write_json(folder / "sweep.json", {"schema_version": 1, "name": "cv", "processes": [], "jobs": jobs})
    return folder
