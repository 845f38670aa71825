"""Pretrain on synthetic clips, from random weights or published ones, and pack what runs then start from.

python -m sousa_bench.pretrain -m model=ast,htsat,beats,efficientat
python -m sousa_bench.pretrain model=efficientat weights=official model.variant=mn04
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from sousa_bench.config import conf_folder
from sousa_bench.errors import UserError
from sousa_bench.models.published import FROM_NOTHING
from sousa_bench.models.weight_files import embedded_file, embedded_folder
from sousa_bench.system.arguments import command_parser, exit_code
from sousa_bench.system.files import sha256

EXPERIMENT = "experiment=pretraining"
FIXED = {
    "experiment": "pretraining is an experiment itself",
    "peft": "all weights train, at trainer.learning_rate; an adapter learns the same clips by sousa_bench.train with "
    "data=pretraining, and runs go on from it by init_from (docs/pretrain.md)",
    "init_from": "weights=embedded or weights=further with model.checkpoint=FOLDER goes on from what was pretrained",
    "teacher": "it learns from labels alone",
    "model.variant": "what begins at random weights is the tiny variant; weights=official takes another",
    "model.weights": "weights=… says it for every model",
}
FROM_PUBLISHED = ("official", "further")
"""Weights of a published checkpoint, whose variant can be chosen."""


def parser() -> argparse.ArgumentParser:
    """The command's own options; what it doesn't know goes to the training command."""
    made = command_parser(
        "sousa_bench.pretrain",
        usage="%(prog)s [--output DIR] [-m] [key=value …]",
        description="Train all weights of the models' tiny variants, or with weights=official all weights of published "
        "checkpoints, on the synthetic source domain, as runs of sousa_bench.train with experiment=pretraining: "
        "resumable, supervised, with a result file each. What comes out is packed in half precision, "
        "with a card.",
        epilog="In place of random weights, weights=official [model.variant=V] [model.checkpoint=FILE] goes on from a "
        "published checkpoint, and weights=embedded or weights=further from what was packed before (the package's, or "
        "model.checkpoint=DIR). Then: python -m sousa_bench.train weights=embedded model.checkpoint=DIR, or "
        "weights=further model.checkpoint=DIR of what began at a published checkpoint.",
        add_help=False,
        allow_abbrev=False,
    )
    made.add_argument("-h", "--help", action="help", help="show this help and end")
    made.add_argument(
        "--output", type=Path, default=Path("pretrained"), metavar="DIR", help="where the weights go (pretrained)"
    )
    return made


def main() -> None:
    """Entry point: the training command's exit codes, 2 for what can't be, or 1 where the packing fails."""
    options, words = parser().parse_known_args()
    given = shlex.join(["python", "-m", "sousa_bench.pretrain", *sys.argv[1:]])
    if refused := exit_code(lambda: check(options.output, words), refused=lambda _: 2):
        sys.exit(refused)
    sys.argv[1:] = [*words, EXPERIMENT]
    from sousa_bench.sweep import completed_folders
    from sousa_bench.train import train

    code = train()
    packed = exit_code(lambda: _pack(completed_folders(), options.output, words))
    if code == 1 or code >= 128:
        print(f"What is not completed yet is gone on with, and packed, by: {given}", file=sys.stderr)
    sys.exit(code or packed)


def check(output: Path, words: list[str]) -> None:
    """Find out before hours of training what would spoil their end.

    Raises:
        UserError: The weights' folder can't be written or holds what the run starts from, or a word asks for what
            pretraining has no choice in.
    """
    given = dict(word.lstrip("+").partition("=")[::2] for word in words)
    if name := next((each for each in given.get("model", "").split(",") if each in FROM_NOTHING), None):
        raise UserError(
            f"model={name}: what pretraining makes of it could not be started from, since it takes weights=random alone"
        )
    begins, places = given.get("weights", "random"), given.get("model.checkpoint", str(embedded_folder())).split(",")
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        free = key == "model.variant" and begins in FROM_PUBLISHED
        if not free and (fixed := group if (group := key.partition(".")[0]) in FIXED else key) in FIXED:
            raise UserError(f"{word}: leave it out: {FIXED[fixed]}")
        if key != "model" and "," in value and _has_several_values(word):
            raise UserError(
                f"{word}: one value only: a model's runs would have one file ({output}/<model>.safetensors)"
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise UserError(f"--output {output}: can't be written ({error.strerror}); give another folder") from error
    if begins == "random":
        return
    target = output.resolve()
    written = {target / f"{file.stem}.safetensors" for file in (conf_folder() / "model").glob("*.yaml")}
    for place in places:
        path = Path(place).expanduser().resolve()
        if path == target or (path in written and path.is_file()):
            raise UserError(
                f"--output {output}: holds the weights that the run goes on from ({place}), which the new ones would "
                "replace; give another folder"
            )


def _has_several_values(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except OverrideParseException:
        return False  # which Hydra says itself


def _pack(folders: list[Path], output: Path, words: list[str]) -> None:
    if not folders:
        return
    from sousa_bench.pretrain.packing import one_per_model, pack  # they import torch
    from sousa_bench.results.finished import finished_run

    runs = one_per_model([finished_run(folder) for folder in folders])
    command = shlex.join(["python", "-m", "sousa_bench.pretrain", *filter(_belongs_on_card, words)])
    for run in runs:
        file = embedded_file(str(run.config["model"]["name"]), str(output))
        old = sha256(file) if file.is_file() else None
        packed = pack(run, output, command)
        replaced = f", in place of another file (SHA-256 {old[:12]}…)" if old and old != sha256(packed) else ""
        print(f"Packed: {packed}{replaced}", flush=True)


def _belongs_on_card(word: str) -> bool:
    """Whether an override stands in a card's command: not where things lie, nor how they are launched."""
    key, _, value = word.partition("=")
    return not key.startswith(("hydra", "sweep", "--", "logger", "n_jobs")) and not value.startswith(("/", "~"))


if __name__ == "__main__":
    main()
