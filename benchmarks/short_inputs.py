"""Do inputs cut to the clips' own length lose accuracy against inputs padded to 10 s?

    python -m sousa_bench.pretrain -m model=ast,beats,efficientat
    python benchmarks/short_inputs.py /data/sousa --checkpoint pretrained --models ast beats efficientat

Fine-tunes each model on real clips both ways (everything else is the same, seeds too), cross-validated by player, and
compares the two on every clip: accuracy, top-5 accuracy and mean log-probability of the right rudiment.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from scipy.stats import binomtest

from sousa_bench.results.finished import finished_runs

WAYS = {
    "own length": ["data.max_duration=10", "data.quantum=0.5"],
    "padded to 10 s": ["data.max_duration=10", "data.quantum=10"],
}
MEASURES = ("top-1", "top-5", "log p")


def trained(home: Path, name: str, words: list[str]) -> dict[str, pd.DataFrame]:
    """Do a sweep; its test predictions by model, a row a clip and seed."""
    command = [sys.executable, "-m", "sousa_bench.train", "-m", f"sweep={name}", "logger=none", *words]
    subprocess.run(command, cwd=home, check=True, stdout=subprocess.DEVNULL)
    parts: dict[str, list[pd.DataFrame]] = {}
    for run in finished_runs([home / "multirun" / name]):
        frame = pd.read_parquet(run.folder / "predictions.parquet").assign(seed=run.config["seed"])
        parts.setdefault(run.config["model"]["name"], []).append(frame)
    return {model: measured(pd.concat(frames)) for model, frames in parts.items()}


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """(clip and seed) × measures."""
    logits, label = np.stack(frame["logits"]), frame["label"].to_numpy()
    own = np.take_along_axis(logits, label[:, None], 1)
    values = {
        "top-1": (frame["predicted"] == frame["label"]).to_numpy(float),
        "top-5": ((logits > own).sum(1) < 5).astype(float),
        "log p": np.take_along_axis(log_softmax(logits, axis=1), label[:, None], 1)[:, 0],
    }
    return pd.DataFrame(values, index=pd.MultiIndex.from_frame(frame[["sample_id", "seed"]])).sort_index()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the real clips")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what sousa_bench.pretrain wrote")
    parser.add_argument("--models", nargs="+", default=["ast", "beats", "efficientat"])
    parser.add_argument("--method", default="lora")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", default="1,2")
    options = parser.parse_args()
    words = [
        f"model={','.join(options.models)}",
        f"peft={options.method}",
        "augmentation=off",
        "data=full",
        f"data.root={options.root.resolve()}",
        f"data.fold={','.join(f'{k}/{options.folds}' for k in range(1, options.folds + 1))}",
        "weights=embedded",
        f"model.checkpoint={options.checkpoint.resolve()}",
        f"trainer.max_epochs={options.epochs}",
        f"seed={options.seeds}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        both = [trained(Path(folder), f"way_{n}", [*words, *way]) for n, way in enumerate(WAYS.values())]
    print(f"{'model':12} {'clips':>5} " + "".join(f"{name + ': ' + m:>24}" for m in MEASURES for name in WAYS))
    for model in options.models:
        short, padded = (each[model] for each in both)
        assert short.index.equals(padded.index)
        means = "".join(f"{frame[m].mean():24.3f}" for m in MEASURES for frame in (short, padded))
        clips = short.index.get_level_values("sample_id").nunique()
        print(f"{model:12} {clips:5} {means}")
        for m in MEASURES:
            difference = (short[m] - padded[m]).groupby("sample_id").mean()
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            print(f"    {m}: {difference.mean():+.3f} ± {1.96 * error:.3f} (95 %, over clips)")
        chance = binomtest(int(short["top-5"].sum()), len(short), 5 / 40, alternative="greater").pvalue
        print(f"    top-5 against chance (0.125): p = {chance:.1g}")


if __name__ == "__main__":
    main()
