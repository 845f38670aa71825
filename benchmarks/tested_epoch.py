"""Which epoch should be tested, the last or the best by validation? Trains, and tests after each epoch.

    python -m benchmarks.tested_epoch --models ast efficientat --methods lora ia3 --seeds 1 2 augmentation=off
    python -m benchmarks.tested_epoch --read tested_epoch.csv another.csv

Words with ``=`` are overrides of the training config. What each epoch's weights said of each validation and test clip
is written to ``--output``, and ``--read`` prints the answers from such files. Each run is trained once, so both rules
speak of the same training. Three answers:

- each epoch's accuracies, and the difference in test accuracy, last epoch less best one, with its 95 % interval over
  runs (Student's t) and over the players of the test (the runs at hand, new players);
- how often the validation split names the epoch that is the better one on the test clips;
- the same for validation splits of other sizes, drawn from the test split's players (1,000 draws): accuracy of the
  epoch that was chosen by them, less that of the last, on the players that were not drawn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from torch.nn.functional import cross_entropy

from sousa_bench.analysis.stats.intervals import difference_interval
from sousa_bench.config.composing import composed
from sousa_bench.data.datamodule import EvalBatches
from sousa_bench.training.checkpoint import best_epoch
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.run import run

RUN = ["model", "method", "seed", "config"]
DRAWS = 1000
PLAYERS = (5, 10, 20, 30)


def trained(model: str, method: str, seed: int, overrides: list[str]) -> pd.DataFrame:
    """A run's clips of validation and test after each epoch: player, whether it was right, and the loss."""
    words = [f"model={model}", f"peft={method}", f"seed={seed}", "logger=none", "trainer.progress=false", *overrides]
    rows: list[pd.DataFrame] = []
    closed = Classifier.on_validation_epoch_end

    def also_test(self: Classifier) -> None:
        closed(self)
        for split in ("val", "test"):
            clips = self.clips[split]
            for batch in EvalBatches(clips, 32):
                logits = self.inputs.plain(split, batch.index).logits().float().cpu()
                labels = clips.labels[batch.index]
                found = {
                    "epoch": self.history[-1]["epoch"],
                    "split": split,
                    "player": clips.table["group"].iloc[batch.index].to_numpy(),
                    "right": (logits.argmax(dim=1) == labels).numpy(),
                    "loss": cross_entropy(logits, labels, reduction="none").numpy(),
                }
                rows.append(pd.DataFrame(found))

    Classifier.on_validation_epoch_end = also_test
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(composed(words), Path(folder))
    finally:
        Classifier.on_validation_epoch_end = closed
    return pd.concat(rows).assign(model=model, method=method, seed=seed, config=" ".join(overrides))


def scores(clips: pd.DataFrame) -> list[dict[str, float]]:
    """Epochs with accuracy and loss, as a run's history has them."""
    means = clips.groupby("epoch")[["right", "loss"]].mean()
    return [{"epoch": int(i), "val_acc": row["right"], "val_loss": row["loss"]} for i, row in means.iterrows()]


def interval(values: np.ndarray) -> str:
    """Mean of independent values in points, with its 95 % interval."""
    if len(values) < 2:
        return f"{100 * values[0]:+.2f} points (no interval of one run)"
    mean, error = values.mean(), values.std(ddof=1) / len(values) ** 0.5
    half = student.ppf(0.975, len(values) - 1) * error
    return f"{100 * mean:+.2f} points ({100 * (mean - half):+.2f} to {100 * (mean + half):+.2f})"


def choices(test: pd.DataFrame, players: int, dice: np.random.Generator) -> Iterator[tuple[bool, float]]:
    """Draws of a validation split: whether it names the better epoch, and what it gains over the last one."""
    sums = test.groupby(["player", "epoch"])[["right", "loss"]].sum().unstack()
    right, loss = sums["right"].to_numpy(float), sums["loss"].to_numpy(float)
    sizes = test[test["epoch"] == 1].groupby("player").size().to_numpy(float)
    for _ in range(DRAWS):
        drawn = np.zeros(len(sizes), bool)
        drawn[dice.choice(len(sizes), players, replace=False)] = True
        epoch = np.lexsort((loss[drawn].sum(axis=0), -right[drawn].sum(axis=0)))[0]
        others = right[~drawn].sum(axis=0) / sizes[~drawn].sum()
        yield others[epoch] == others.max(), others[epoch] - others[-1]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tested_epoch", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["ast", "efficientat"])
    parser.add_argument("--methods", nargs="+", default=["lora", "ia3"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--output", type=Path, default=Path("tested_epoch.csv"))
    parser.add_argument("--read", nargs="+", type=Path, help="train nothing, print what these files say")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.read:
        clips = pd.concat([pd.read_csv(path, keep_default_na=False) for path in options.read])
    else:
        torch.set_num_threads(1)
        cells = [(m, p, s) for m in options.models for p in options.methods for s in options.seeds]
        parts = []
        for cell in cells:
            parts.append(trained(*cell, options.overrides))
            pd.concat(parts).to_csv(options.output, index=False)
        clips = pd.concat(parts)
    report(clips)


def report(clips: pd.DataFrame) -> None:
    """Print the three answers."""
    dice, gains, named, by_player = np.random.default_rng(0), [], [], []
    drawn: dict[int, list[tuple[bool, float]]] = {players: [] for players in PLAYERS}
    print("run: validation, test accuracy by epoch; the best by validation; last less best, test")
    for name, rows in clips.groupby(RUN, sort=False):
        val, test = (rows[rows["split"] == split] for split in ("val", "test"))
        history, tested = scores(val), [each["val_acc"] for each in scores(test)]
        best = best_epoch(history)
        gains.append(tested[-1] - tested[best - 1])
        named.append(tested[best - 1] == max(tested))
        right = test.assign(right=test["right"].astype(float)).pivot_table("right", "player", "epoch", "sum")
        by_player.append((right.iloc[:, -1] - right[best], test[test["epoch"] == 1].groupby("player").size()))
        for players in PLAYERS:
            drawn[players] += choices(test, players, dice)
        accuracies = ("  ".join(f"{value:.3f}" for value in each) for each in ([e["val_acc"] for e in history], tested))
        print(f"{' '.join(map(str, name))}: {' | '.join(accuracies)} | {best} | {100 * gains[-1]:+.2f}")
    print(f"last less best, over {len(gains)} runs: {interval(np.array(gains))}")
    difference, sizes = (pd.concat(each).groupby(level=0).sum() for each in zip(*by_player, strict=True))
    found = difference_interval(difference.to_numpy(float), sizes.to_numpy(float))
    mean, low, high = (100 * float(end[0]) for end in (found.estimate, found.low, found.high))
    print(f"the same over players: {mean:+.2f} points ({low:+.2f} to {high:+.2f})")
    print(f"validation names an epoch that is best on the test clips in {sum(named)} of {len(named)} runs")
    for players, results in drawn.items():
        good, gain = np.array(results, float).T
        print(
            f"{players} players drawn to validate: name the better epoch in {100 * good.mean():.0f} % of draws, "
            f"{100 * gain.mean():+.2f} points against the last"
        )


if __name__ == "__main__":
    main()
