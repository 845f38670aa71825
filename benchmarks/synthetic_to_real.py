"""Train on synthetic clips alone, test on real ones.

    python benchmarks/synthetic_to_real.py /data/rudiments --clips 3000 --epochs 8

Prints top-1 and top-5 accuracy on every clip of the real folder (any layout that `data.root` takes), beside chance and
with one-sided binomial p-values.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.stats import binomtest

from sousa_bench.config import conf_folder
from sousa_bench.config.instantiate import build
from sousa_bench.data import SPLITS
from sousa_bench.data.datamodule import Clips, EvalBatches
from sousa_bench.peft import load_run_model
from sousa_bench.training.run import run


def config(*overrides: str):
    """Compose the project's config outside a command."""
    OmegaConf.register_new_resolver("sousa_run", lambda root: root, replace=True)
    OmegaConf.register_new_resolver("sousa_name", lambda: "run", replace=True)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("config", overrides=["logger=none", *overrides])


@torch.no_grad()
def logits_of(model, clips: Clips) -> tuple[torch.Tensor, torch.Tensor]:
    """All logits and labels of a split."""
    rows, labels = [], []
    for batch in EvalBatches(clips, 32):
        waveform = clips.waveform(batch.index).float() / 32768
        rows.append(model(waveform, torch.from_numpy(clips.lengths[batch.index])))
        labels.append(clips.labels[batch.index])
    return torch.cat(rows), torch.cat(labels)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the real clips")
    parser.add_argument("--model", default="efficientat")
    parser.add_argument("--clips", type=int, default=3000, help="synthetic clips in all")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cfg = config(
            f"model={arguments.model}",
            "peft=full",
            "augmentation=off",
            "weights=random",
            f"trainer.learning_rate={arguments.learning_rate}",
            f"trainer.head_learning_rate={arguments.learning_rate}",
            f"seed={arguments.seed}",
            f"trainer.max_epochs={arguments.epochs}",
            f"data.synthetic.clips={arguments.clips}",
            "data.synthetic.split_players=[80,10,20]",
        )
        result = run(cfg, Path(folder) / "run")
        model = load_run_model(Path(folder) / "run" / "adapter").eval()
    real = build(config("data=full", f"data.root={arguments.root}").data)
    real.prepare((model.sample_rate,))
    parts = [logits_of(model, Clips(real, split, model.sample_rate, 0.5)) for split in SPLITS]
    logits, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    top = logits.topk(5, dim=1).indices == labels[:, None]
    hits = np.array([top[:, :k].any(dim=1).sum().item() for k in (1, 5)])
    clips = result["data"]["counts"]["train"]
    print(f"{arguments.model}, all weights, {clips} synthetic clips, {arguments.epochs} epochs")
    metrics = result["metrics"]
    print(f"synthetic test: top-1 {metrics['test_acc']:.3f}, top-5 {metrics['test_top5_acc']:.3f}")
    for name, count, chance in zip(("top-1", "top-5"), hits, (1 / 40, 5 / 40), strict=True):
        p = binomtest(int(count), len(labels), chance, alternative="greater").pvalue
        print(f"real, {len(labels)} clips: {name} {count / len(labels):.3f} (chance {chance:.3f}, p = {p:.2g})")


if __name__ == "__main__":
    main()
