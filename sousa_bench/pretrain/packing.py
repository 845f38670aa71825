"""Pretrained weights as runs start from them: in half precision, with a card that tells how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sousa_bench.data.saved_task import saved_task
from sousa_bench.data.synthetic import VERSIONS
from sousa_bench.errors import UserError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.checkpoint_formats import read
from sousa_bench.models.packed_file import MAX_DURATION, OF_PUBLISHED, PUBLISHED, QUANTUM, TASK, facts_in
from sousa_bench.models.published import HEADER
from sousa_bench.models.weight_files import PACKED, embedded_file
from sousa_bench.peft import load_run_model
from sousa_bench.peft.options import trains_all
from sousa_bench.results.finished import FinishedRun
from sousa_bench.system.files import replaced, sha256
from sousa_bench.task import counted

LICENSE = "MIT"


def one_per_model(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs, of which each model has one.

    Raises:
        UserError: A model has several, whose files would have the same name.
    """
    by_model: dict[str, FinishedRun] = {}
    for run in runs:
        model = str(run.config["model"]["name"])
        if model in by_model and by_model[model].folder != run.folder:
            raise UserError(
                f"{model} was trained twice ({by_model[model].folder} and {run.folder}), and a folder has one "
                "file for a model: give the command again with one value for each key but model, and it packs that run"
            )
        by_model[model] = run
    return list(by_model.values())


def pack(run: FinishedRun, folder: Path, command: str) -> Path:
    """Write ``<model>.safetensors`` and ``<model>.md`` of a finished pretraining run.

    Args:
        run: A completed run with ``peft=full``.
        folder: Where to; older files of the model are replaced.
        command: The command line, for the card.

    Returns:
        The weights' file.

    Raises:
        UserError: The run trained adapters only, or a weight has no place in half precision.
    """
    if not trains_all(run.config["peft"]):
        raise UserError(
            f"{run.folder}: pretrained weights are those of a run with peft=full, and this one has "
            f"{run.config['peft']['name']}, layers={run.config['peft'].get('layers', 'all')}"
        )
    model = load_run_model(run.adapter)
    state = halves(model)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model.name}.safetensors"
    weights = run.result["weights"]
    from_file = weights["kind"] == "embedded" or run.config["model"]["checkpoint"]
    if from_file and " model.checkpoint=" not in command:
        command += f" model.checkpoint={weights['origin']}"
    facts: dict[str, Any] = {
        "model": model.name,
        "variant": model.variant,
        TASK: saved_task(run.result, run.folder).as_dict(),
        **{key: run.config["data"][key] for key in (QUANTUM, MAX_DURATION)},
        "sousa_bench": run.result["environment"]["sousa_bench"],
        "command": command,
    }
    if published := _published(weights):
        facts[PUBLISHED] = published
    license_ = LICENSE if weights["kind"] == "random" else weights["license"]
    if run.config["data"].get("synthetic") and license_:
        facts["license"] = license_  # of weights that come from other data, whoever trained them decides
    if before := _before(run):  # now: the new file may take the place of the one that the run went on from
        facts["before"] = before
    with replaced(path) as draft:
        save_file(state, draft, metadata=header(facts))
    path.with_suffix(".md").write_text(card(run, facts, path, state), encoding="utf-8")
    return path


def header(facts: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of a weights file: one entry, since safetensors writes several in no fixed order."""
    return {HEADER: json.dumps(facts)}


def halves(model: AudioModel) -> dict[str, Tensor]:
    """The backbone's tensors; floats as float16.

    Raises:
        UserError: A value is too large for float16.
    """
    state: dict[str, Tensor] = {}
    for key, tensor in model.backbone.state_dict().items():
        half = tensor.half() if tensor.is_floating_point() else tensor
        if half.is_floating_point() and not torch.isfinite(half).all():
            raise UserError(f"{model.name}: {key} holds values that float16 can't ({float(tensor.abs().max()):g})")
        state[key] = half.contiguous()
    return state


def card(run: FinishedRun, facts: Mapping[str, Any], path: Path, state: Mapping[str, Tensor]) -> str:
    """Markdown: what was trained on what, for how long, and how well it did."""
    result, config = run.result, run.config
    metrics, efficiency, data, peft = result["metrics"], result["efficiency"], result["data"], result["peft"]
    environment, counts, trainer = result["environment"], data["counts"], config["trainer"]
    variant, threads, task = facts["variant"], environment["threads"], saved_task(result, run.folder)
    numbers = sum(tensor.numel() for tensor in state.values())
    if result["weights"]["kind"] in ("random", "official"):
        others = f"other {task.groups} of the same data"
    else:
        others = f"{task.groups} that this stage didn't train on, and those before it may have"
    clips = task.extent(f"{counts['train']:,}", data[task.groups_key]["train"], " of ")
    top5 = f"top 5: {metrics['test_top5_acc']:.3f}; " if "test_top5_acc" in metrics else ""
    chance = "" if task.several else f" ({top5}chance {1 / len(task.classes):.3g})"
    rows = {
        "model": f"{config['model']['name']}, variant {variant}: `{json.dumps(config['model']['variants'][variant])}`",
        "file": f"`{path.name}`, {path.stat().st_size / 1e6:.2f} MB, {numbers:,} numbers in float16, with a head for "
        f"{counted(len(task.classes), task.noun)}",
        "SHA-256": f"`{sha256(path)}`",
        "data": f"{_clips(config['data'])}: {clips} to train on, at most {config['data']['max_duration']:g} s of each",
        "augmentation": _augmented(config["augmentation"]),
        "training": f"all weights from {_beginning(result['weights'], facts.get('before'))} (seed {config['seed']}), "
        f"{efficiency['epochs']} epochs of batches of {trainer['batch_size']}: {efficiency['steps']:,} steps, "
        f"{efficiency['epochs'] * counts['train']:,} clips; peak learning rate {peft['learning_rate']:g}, of the "
        f"head's last layer {peft['head_learning_rate']:g}",
        "time": f"{efficiency['training_time_seconds'] / 60:.0f} min on {environment['device']}, "
        f"{threads} thread{'' if threads == 1 else 's'}",
        "score": f"epoch {metrics.get('tested_epoch', metrics['best_epoch'])}; {task.score} "
        f"{metrics[f'val_{task.metric}']:.3f} on {counts['val']} validation and {metrics[f'test_{task.metric}']:.3f} "
        f"on {counts['test']} test clips of {others}{chance}",
        "made by": f"sousa_bench {environment['sousa_bench']}, {_commit(result)}",
    }
    about = "Small weights for comparisons without a network; the published checkpoint is `weights=official`."
    if published := facts.get(PUBLISHED):
        rows["began at"] = (
            f"the published `{published['origin']}`, SHA-256 `{published['sha256']}`, licence "
            f"{published['license'] or 'not known'}; pretraining: {published['pretraining'] or 'not known'}"
        )
        about = f"A published checkpoint, trained further: `weights=further model.checkpoint={path.name}`."
    if license_ := facts.get("license"):
        rows["licence"] = license_
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# {'Further' if published else 'Embedded'} weights of {config['model']['name']}\n\n{about}\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n```bash\n{facts['command']}\n```\n"
    )


def _published(weights: Mapping[str, Any]) -> dict[str, Any] | None:
    """The published checkpoint that a run's weights began at; None where they began at random ones."""
    if weights["kind"] == "official":
        return {key: weights[key] for key in OF_PUBLISHED}
    return weights.get(PUBLISHED)


def _beginning(weights: Mapping[str, Any], before: str | None) -> str:
    if weights["kind"] == "random":
        return "random ones"
    made = f", made by `{before}`" if before else ""
    return f"those of `{weights['origin']}`, SHA-256 `{weights['sha256']}`{made}"


def _before(run: FinishedRun) -> str:
    """The commands that made the weights that the run went on from, as far as their file still tells."""
    weights, model = run.result["weights"], run.config["model"]
    path = embedded_file(model["name"], model["checkpoint"])
    if weights["kind"] not in PACKED or not path.is_file() or sha256(path) != weights["sha256"]:
        return ""
    facts = facts_in(read(path)[1])
    return " && ".join(filter(None, (facts.get("before"), facts.get("command"))))


def _clips(data: Mapping[str, Any]) -> str:
    recipe = data.get("synthetic")
    if not recipe:
        return f"data={data['name']}"
    # The run's own version: one of another version would not count as completed, and be trained anew.
    return f"synthetic {recipe['domain']} domain, seed {recipe['seed']}, generator version {VERSIONS[recipe['domain']]}"


def _augmented(config: Mapping[str, Any]) -> str:
    used = [name for name, part in config.items() if isinstance(part, Mapping) and part["enabled"]]
    if "spec_augment" in used:
        masks = config["spec_augment"]
        used[used.index("spec_augment")] = f"{masks['frequency_masks']} frequency and {masks['time_masks']} time masks"
    return ", ".join(used).replace("_", " ") or "none"


def _commit(result: Mapping[str, Any]) -> str:
    commit, _, changed = str(result["git_commit"] or "").partition("-")
    if not commit:
        return "commit unknown"
    return f"commit {commit[:12]}" + (" and changes that are in no commit" if changed else "")
