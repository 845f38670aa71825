"""Everything that a card is needed for, within eight minutes on one; writes a section of docs/benchmarks.md.

    make gpu
    python -m benchmarks.gpu --dry-run --models ast efficientat --methods lora head

Parity of all models with the CPU, a training step of every model under every method, torch.compile, throughput and
utilisation, two processes over NCCL where there are two cards, the comparison's sweep at official size, and eight runs
that share a card. What is not done by then is ended and named, and whatever fails is too: then the exit code is 1.
Without a card there is nothing to do. A dry run does the same with small networks and few clips on the CPU, and shows
its section.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from benchmarks.compile import compiled
from sousa_bench.benchmark.arithmetic import Setup, inference
from sousa_bench.benchmark.parts import machine
from sousa_bench.benchmark.precision import precision
from sousa_bench.benchmark.whole_sweep import timed_command
from sousa_bench.catalogue.model_facts import model_facts
from sousa_bench.config import conf_folder
from sousa_bench.config.composing import composed
from sousa_bench.errors import first_line
from sousa_bench.peft import precheck
from sousa_bench.peft.options import takes_no_steps
from sousa_bench.system.gpus import visible_gpus

HEADING = "## On a GPU"
NONE_YET = "No figure from a GPU stands here yet.\n\n"
"""What the page says before it has the section."""
TOLERANCES = {"32-true": 1e-3, "bf16-mixed": 0.1}
"""Largest difference of a logit from the CPU's float32, over the largest logit."""
FEW = ["data.synthetic.clips=40", "data.synthetic.split_players=[3,1,1]", "trainer.batch_size=8", "augmentation=off"]
COMPARED = ("ast", "htsat", "beats", "efficientat")
Row = tuple[str, ...]


@dataclass
class Card:
    """What is measured, on what, and until when.

    Attributes:
        accelerator: ``gpu``, or ``cpu`` for a dry run.
        models: Names.
        methods: Names.
        until: Monotonic time by which all has ended.
        failed: What went wrong, a line each.
        late: What there was no time for, or too little.
    """

    accelerator: str
    models: list[str]
    methods: list[str]
    until: float
    failed: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    @property
    def dry(self) -> bool:
        """Whether it is the CPU, with small networks."""
        return self.accelerator == "cpu"

    @property
    def size(self) -> list[str]:
        """Overrides of the published size, which costs the same with random weights."""
        return ["weights=random", *([] if self.dry else ["model.variant=official"])]

    @property
    def compared(self) -> list[str]:
        """Those of the models that the comparison holds."""
        return [model for model in self.models if model in COMPARED]

    @property
    def crowds(self) -> list[str]:
        """Values of ``hydra.launcher.runs_per_gpu``."""
        return ["2"] if self.dry else ["1", "2", "4", "8", "auto"]

    def words(self, model: str, method: str, *more: str) -> list[str]:
        """Overrides of a run on the card."""
        return [f"model={model}", f"peft={method}", f"trainer.accelerator={self.accelerator}", *FEW, *more]

    def attempt(self, name: str, measure: Callable[..., Iterator[Row]], *case: Any) -> list[Row]:
        """The rows of a measurement; none, and a note, where it fails or time is over."""
        if time.monotonic() > self.until:
            self.late.append(name)
            return []
        try:
            with ended_at(self.until):
                return list(measure(self, *case))
        except OutOfTime:
            self.late.append(name)
            return []
        except Exception as error:
            self.failed.append(f"{name}: {type(error).__name__}: {first_line(error)}")
            return []
        finally:
            if not self.dry:
                torch.cuda.empty_cache()


class OutOfTime(BaseException):
    """Time is over; no ``except Exception`` on the way takes it."""


@contextmanager
def ended_at(until: float) -> Iterator[None]:
    """End what goes on inside, a command's process included, at a monotonic time.

    Raises:
        OutOfTime: It is reached.
    """

    def stop(*_: object) -> None:
        raise OutOfTime

    former = signal.signal(signal.SIGALRM, stop)
    earlier = signal.setitimer(signal.ITIMER_REAL, max(until - time.monotonic(), 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *earlier)
        signal.signal(signal.SIGALRM, former)


class Part(NamedTuple):
    """A part of the section.

    Attributes:
        title: Its own.
        columns: Of its table.
        measure: (card, case) → rows.
        repeated: The attribute of the card that names the cases, such as models; empty: it isn't repeated.
    """

    title: str
    columns: Row
    measure: Callable[..., Iterator[Row]]
    repeated: str = ""


def parity(card: Card, model: str) -> Iterator[Row]:
    """A model's validation logits beside those of the CPU in float32.

    Raises:
        AssertionError: They differ by more than the tolerance.
    """

    def logits(accelerator: str, in_precision: str) -> torch.Tensor:
        words = card.words(model, "full" if model == "cnn" else "lora", "weights=random")
        setup = Setup.of(composed([*words, f"trainer.accelerator={accelerator}", f"trainer.precision={in_precision}"]))
        [batch, *_] = setup.datamodule.val_dataloader()
        setup.module.model.eval()
        with torch.no_grad(), setup.autocast:
            return setup.module.inputs.plain("val", batch.index).logits().float().cpu()

    exact = logits("cpu", "32-true")
    found = {
        name: float((logits(card.accelerator, name) - exact).abs().max() / exact.abs().max()) for name in TOLERANCES
    }
    far = [name for name, difference in found.items() if not difference <= TOLERANCES[name]]
    assert not far, f"the logits differ in {', '.join(far)}: {found}"
    yield (model, *(f"{difference:.1e}" for difference in found.values()))


def steps(card: Card, model: str) -> Iterator[Row]:
    """One optimizer step of a model under every method that fits it, in bfloat16."""
    taken, refused = 0, 0
    for method in card.methods:
        cfg = composed(card.words(model, method, "weights=random", "trainer.precision=bf16-mixed"))
        if takes_no_steps(cfg.peft) or precheck(cfg.model, cfg.peft, cfg.augmentation, cfg.trainer):
            refused += 1
            continue
        taken += len(card.attempt(f"a step of {model} under {method}", _step, cfg))
    yield model, str(taken), str(refused)


def _step(card: Card, cfg: DictConfig) -> Iterator[Row]:
    setup = Setup.of(cfg)
    module = setup.module
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    [batch, *_] = setup.batches(0)
    module.injection.train_mode()
    with setup.autocast:
        loss = module.update(module.configure_optimizers(), module.training_inputs(batch), len(batch.members))
    assert loss.isfinite(), "the loss is not finite"
    assert all(parameter.isfinite().all() for parameter in trained), "a weight is not finite"
    assert any(not torch.equal(*pair) for pair in zip(before, trained, strict=True)), "no weight has moved"
    yield ("done",)


def compiling(card: Card, model: str) -> Iterator[Row]:
    """What torch.compile gains."""
    found = compiled(card.words(model, "full" if model == "cnn" else "lora", "weights=random"))
    yield model, f"{found.eager / found.steady:.2f}", f"{found.warm_up:.0f} s"


def speed(card: Card, model: str) -> Iterator[Row]:
    """Epochs in both precisions, their utilisation, and inference."""
    words = card.words(model, "lora", *card.size)
    epoch = precision(words, repeats=1 if card.dry else 3)
    clips = inference([*words, "trainer.precision=bf16-mixed"], repeats=3)
    yield (
        model,
        *(f"{epoch[f'{kind}_seconds']:.3f} s" for kind in ("float32", "bfloat16")),
        f"{epoch['ratio']:.2f}",
        *(f"{epoch[f'{kind}_utilisation']:.0%}".replace("%", " %") for kind in ("float32", "bfloat16")),
        f"{clips['clips_per_second']:.0f} clips/s",
    )


def two_processes(card: Card) -> Iterator[Row]:
    """A run over two devices."""
    if not card.dry and torch.cuda.device_count() < 2:
        yield "left out: one card", ""
        return
    words = card.words("ast", "lora", "trainer.devices=2", "trainer.max_epochs=1", *card.size)
    yield "AST, LoRA, over two devices", f"{timed_command([*words, 'logger=none']):.0f} s"


def sharing(card: Card, crowd: str) -> Iterator[Row]:
    """Runs of a network that leaves a card idle, so many on one."""
    few = [*FEW, "seed=1,2", "trainer.max_epochs=1"] if card.dry else ["data.synthetic.clips=400", "seed=range(1,9)"]
    words = ["model=efficientat", "peft=lora", f"trainer.accelerator={card.accelerator}", *card.size, *few]
    # In a dry run the sweep believes in a GPU, which its runs leave alone.
    gpu = "0" if card.dry else [*visible_gpus(), "0"][0]
    taken = timed_command([*words, f"hydra.launcher.runs_per_gpu={crowd}", "logger=none"], CUDA_VISIBLE_DEVICES=gpu)
    yield crowd, "2" if card.dry else "8", f"{taken:.0f} s"


def whole_sweep(card: Card) -> Iterator[Row]:
    """The comparison's runs, by the training command."""
    few = (
        ["peft=lora", "augmentation=off", *FEW[:3], "trainer.max_epochs=1"]
        if card.dry
        else ["data.synthetic.clips=1000"]
    )
    words = ["experiment=comparison", f"model={','.join(card.compared)}", f"trainer.accelerator={card.accelerator}"]
    yield (
        "a few small ones" if card.dry else "24 at official size, 1,000 clips",
        f"{timed_command([*words, *card.size, *few, 'logger=none']):.0f} s",
    )


PARTS: dict[str, Part] = {
    "parity": Part("Parity", ("model", "float32", "bfloat16"), parity, "models"),
    "steps": Part(
        "A step under each method", ("model", "done", "pairs that can't train, or take no steps"), steps, "models"
    ),
    "speed": Part(
        "An epoch's arithmetic",
        ("model", "float32", "bfloat16", "times as fast", "utilisation, float32", "bfloat16", "inference, bfloat16"),
        speed,
        "compared",
    ),
    "ddp": Part("Two processes", ("run", "time"), two_processes),
    "sweep": Part("`experiment=comparison`", ("runs", "time"), whole_sweep),
    "sharing": Part(
        "Several runs on one card",
        ("`runs_per_gpu`", "runs of EfficientAT", "time, start included"),
        sharing,
        "crowds",
    ),
    "compile": Part("torch.compile", ("model", "times as fast", "warm-up"), compiling, "models"),
}
"""In their order; the last may be cut short."""


def section(card: Card, parts: Sequence[str]) -> str:
    """Measure, and say it in Markdown."""
    facts = machine()
    device = "the CPU, a dry run" if card.dry else torch.cuda.get_device_name()
    lines = [HEADING, "", f"`make gpu` on {device}, {facts['date'][:10]}, torch {facts['torch']}."]
    for part in (PARTS[name] for name in parts):
        print(f"{part.title} …", flush=True)
        cases: list[tuple[str, ...]] = [(name,) for name in getattr(card, part.repeated)] if part.repeated else [()]
        rows = [row for case in cases for row in card.attempt(" of ".join([part.title, *case]), part.measure, *case)]
        cells = [part.columns, ("---",) * len(part.columns), *rows]
        lines += ["", f"**{part.title}**", "", *(f"| {' | '.join(row)} |" for row in cells)]
    stated = " and ".join(f"{limit:g} in {name}" for name, limit in TOLERANCES.items())
    lines += [
        "",
        f"Parity is the largest difference from the CPU's float32 logits, over the largest; at most {stated}.",
    ]
    if card.failed:
        lines += ["", "Failed:", "", *(f"- {what}" for what in card.failed)]
    if card.late:
        lines += ["", f"There was not time enough for: {', '.join(card.late)}."]
    return "\n".join(lines) + "\n"


def written(page: str, made: str) -> str:
    """A page with the section in the place of its earlier one, else at its end."""
    page = page.replace(NONE_YET, "")
    earlier = re.compile(rf"^{HEADING}\n.*?(?=^## |\Z)", re.M | re.S)
    if earlier.search(page):
        return earlier.sub(lambda _: made + "\n", page, count=1).rstrip("\n") + "\n"
    return f"{page.rstrip()}\n\n{made}"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    models = [each["model"] for each in model_facts()]
    methods = sorted(file.stem for file in (conf_folder() / "peft").glob("*.yaml"))
    parser.add_argument("--dry-run", action="store_true", help="small sizes on the CPU; nothing is written")
    parser.add_argument("--models", nargs="+", choices=models, default=models, metavar="MODEL", help="these (all)")
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods, metavar="PEFT", help="these (all)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="by which all has ended (8)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the page that holds the section")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("No CUDA device here: nothing to measure (--dry-run tries everything on the CPU)")
        return 0
    accelerator = "cpu" if options.dry_run else "gpu"
    card = Card(accelerator, options.models, options.methods, time.monotonic() + 60 * options.minutes)
    made = section(card, options.parts)
    print(made)
    if options.write and not options.dry_run:
        options.write.write_text(written(options.write.read_text(encoding="utf-8"), made), encoding="utf-8")
    return 1 if card.failed else 0


if __name__ == "__main__":
    sys.exit(main())
