"""The model card, ``README.md`` of a package, in the form that the hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sousa_bench.export.description import licence

EXAMPLE = """\
import json
import numpy as np
import onnxruntime
import soundfile

config = json.load(open("config.json"))
rate = config["preprocessing"]["sample_rate"]
waveform, found = soundfile.read("clip.wav", dtype="float32", always_2d=True)
assert found == rate, f"resample from {found} to {rate} Hz first, for example with soxr.resample"
session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(["logits"], {"waveform": waveform.mean(axis=1)[None]})[0][0]
probabilities = np.exp(logits - logits.max())
probabilities /= probabilities.sum()
for index in np.argsort(-probabilities)[:5]:
    print(f"{probabilities[index]:.4f}  {config['labels'][index]}")
"""

_METRICS = (
    ("test_acc", "Accuracy"),
    ("test_top5_acc", "Top-5 accuracy"),
    ("test_f1_macro", "Macro F1"),
    ("test_balanced_acc", "Balanced accuracy"),
)


def model_card(config: Mapping[str, Any]) -> str:
    """Markdown of a package's card from its ``config.json``."""
    parts = (_header, _title, _results, _data, _usage, _origin, _limits)
    return "\n".join(part(config) for part in parts)


def _header(config: Mapping[str, Any]) -> str:
    name = config["base_weights"]["license"]
    lines = ["---", f"license: {name.lower() if name else 'unknown'}", "pipeline_tag: audio-classification"]
    return "\n".join(
        [*lines, "library_name: onnx", "tags:", "- audio", "- drums", "- rudiments", "- sousa_bench", "---", ""]
    )


def _title(config: Mapping[str, Any]) -> str:
    training, preparation = config["training"], config["preprocessing"]
    augmented = "with" if training["augmentation"] else "without"
    return (
        f"# Drum rudiments: {training['model']} tuned by {training['strategy']}\n\n"
        f"Names which of {len(config['labels'])} drum rudiments a clip of a snare drum holds. "
        f"Model {training['model']}, variant {config['model']['variant']}, tuned by {training['strategy']} "
        f"{augmented} augmentation, seed {training['seed']}. The adapters are merged into the weights.\n\n"
        f"- `model.onnx`: waveform (batch, samples), float32, mono, {preparation['sample_rate']} Hz → logits "
        f"(batch, {len(config['labels'])}); opset {config['onnx']['opset']}, any batch and any length\n"
        "- `model.safetensors`: the merged weights; `python -m sousa_bench.predict` takes this folder, too\n"
        "- `config.json`: labels in the order of the logits, preprocessing, all numbers below\n"
    )


def _results(config: Mapping[str, Any]) -> str:
    metrics = config["metrics"]
    rows = [_row(metrics, key, name) for key, name in _METRICS if metrics.get(key) is not None]
    lines = ["## Results", "", "| On the test split | Value | 95 % interval |", "| --- | --- | --- |", *rows, ""]
    clips, players = metrics.get("test_clips"), metrics.get("test_players")
    if clips:
        of = f" of {players} players" if players else ""
        lines.append(
            f"{clips} clips{of}. " + (metrics.get("no_interval") or "Intervals take the players as the sample.")
        )
    lines += [f"\n> {warning}" for warning in config["run"].get("warnings") or []]
    return "\n".join([*lines, ""])


def _row(metrics: Mapping[str, Any], key: str, name: str) -> str:
    found = metrics.get(f"{key}_interval")
    return f"| {name} | {metrics[key]:.4f} | {f'{found[0]:.4f} to {found[1]:.4f}' if found else '–'} |"


def _data(config: Mapping[str, Any]) -> str:
    data = config["data"]
    lines = ["## Data", "", f"`{data.get('name')}`, source: {data.get('source')}.", ""]
    lines += ["| Split | Clips | Players |", "| --- | --- | --- |"]
    players = data.get("players") or {}
    for split, count in (data.get("counts") or {}).items():
        lines.append(f"| {split} | {count} | {players.get(split, '–')} |")
    return "\n".join([*lines, "", f"Content fingerprint: `{data.get('fingerprint')}`.", ""])


def _usage(config: Mapping[str, Any]) -> str:
    preparation, check = config["preprocessing"], config["onnx"]["check"]
    return (
        f"## Use\n\n`pip install onnxruntime soundfile`, then in this folder:\n\n```python\n{EXAMPLE}```\n\n"
        f"The graph itself cuts a clip to its first {preparation['max_duration']:g} s, rounds it to 16 bits as in "
        f"training, pads it to a multiple of {preparation['quantum']:g} s and computes the features. All clips of a "
        f"batch have the same length. At export {check['runtime']} was compared with the PyTorch model at "
        f"{len(check['seconds'])} lengths: the logits differed by {check['onnx_error']:.1e} at most."
        f"{_precision(config)}\n"
    )


def _precision(config: Mapping[str, Any]) -> str:
    precision = config["environment"].get("precision", "32-true")
    return "" if precision == "32-true" else f" The run itself was trained and tested in {precision}, this is float32."


def _origin(config: Mapping[str, Any]) -> str:
    weights, run = config["base_weights"], config["run"]
    return (
        f"## Origin\n\n- Base weights: {weights['kind']}, {weights['origin']}, SHA-256 `{weights['sha256']}`\n"
        f"- Licence of the base weights: {licence(config)}\n"
        f"- Trained by `{run.get('command')}` (run `{run.get('experiment_id')}`, commit `{run.get('git_commit')}`)\n"
        f"- Made by `{config['command']}`, sousa_bench {config['sousa_bench']}\n"
    )


def _limits(config: Mapping[str, Any]) -> str:
    preparation, data = config["preprocessing"], config["data"].get("name")
    note = f"- {said}.\n" if (said := config["base_weights"].get("note")) else ""
    return (
        f"## Limits\n\n{note}- Trained and tested on `{data}` data. SOUSA's performances are synthetic: expect less on "
        "recordings of people in rooms.\n"
        "- It always names one of its rudiments, also for a clip that holds another figure, another instrument or "
        f"none.\n- A clip of less than {preparation['min_duration']:g} s holds too little; of a longer one than "
        f"{preparation['max_duration']:g} s only the beginning is heard.\n"
        "- The probabilities were not calibrated.\n"
    )
