"""Every method on every model: it trains, its loss falls, a fresh process loads it, its count is the documented one."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from helpers import ADDED, CHANGE_THE_START, CONF, choice, methods, refused
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.functional import cross_entropy

from sousa_bench.data.rudiments import TASK
from sousa_bench.models.base import AudioModel
from sousa_bench.peft import Injection, inject, precheck
from sousa_bench.peft.budget import choose_size
from sousa_bench.peft.method_sizes import declared_size, size_of
from sousa_bench.peft.options import plain, read
from tests.cases import check_each

MODELS = ("ast", "htsat", "beats", "efficientat")
FURTHER = ("ced", "dasheng", "eat", "passt", "openbeats")
SPEECH = ("hubert", "wavlm", "whisper")
METHODS = [method for method in methods() if method not in ("probe", "knn")]  # these take no steps: tests/core
CLIPS, CLASSES, BATCH_SIZE, EPOCHS = 12, 4, 4, 2
FALLS_TO = 0.9
"""Two epochs bring the loss over all clips down to this part of what it was, or lower."""
DOCS = CONF.parent / "docs" / "peft.md"
RELOAD = """
import sys, torch
from pathlib import Path
from sousa_bench.peft import load_run_model
torch.set_num_threads(1)
root = Path(sys.argv[1])
for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    clips = torch.load(root / (folder.name.split("-")[0] + ".pt"), weights_only=True)
    with torch.no_grad():
        torch.save(load_run_model(folder).backbone(*clips), folder / "reloaded.pt")
"""


def model_node(name: str, variant: str = "tiny") -> DictConfig:
    root = OmegaConf.create({"weights": "random", "seed": 5, "model": OmegaConf.load(CONF / "model" / f"{name}.yaml")})
    root.model.variant = variant
    return OmegaConf.create(OmegaConf.to_container(root.model, resolve=True))


def build(node: DictConfig) -> AudioModel:
    return instantiate(node, num_classes=40, _convert_="all")


def clips(sample_rate: int, count: int = CLIPS, seconds: float = 1.0) -> torch.Tensor:
    """Bursts of noise whose rate tells the class."""
    noise = torch.Generator().manual_seed(11)
    time = torch.arange(int(sample_rate * seconds)) / sample_rate
    rates = [3 + 4 * (index % CLASSES) for index in range(count)]
    return torch.stack([(time * r % 1 < 0.1) * torch.randn(len(time), generator=noise) * 0.3 for r in rates])


def train(injection: Injection, features: torch.Tensor, mask: torch.Tensor | None) -> tuple[float, float]:
    """Two epochs; the loss over all clips before and after, in evaluation mode."""
    model, labels = injection.model, torch.arange(len(features)) % CLASSES

    def loss(rows: slice) -> torch.Tensor:
        return cross_entropy(model.backbone(features[rows], None if mask is None else mask[rows]), labels[rows])

    def whole() -> float:
        model.eval()
        with torch.no_grad():
            return loss(slice(None)).item()

    before = whole()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=injection.options.learning_rate)
    starts = [start for _ in range(EPOCHS) for start in range(0, len(features), BATCH_SIZE)]
    for step, start in enumerate(starts, 1):
        torch.manual_seed(step)
        injection.train_mode()
        extra = injection.extra_loss()
        (loss(slice(start, start + BATCH_SIZE)) + (0.0 if extra is None else extra)).backward()
        unread = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not unread, f"no gradient reaches {unread}"
        optimizer.step()
        injection.after_optimizer_step(step)
        optimizer.zero_grad()
    injection.finish()
    return before, whole()


@pytest.fixture(
    scope="module",
    params=[MODELS, *(pytest.param(names, marks=pytest.mark.slow) for names in (FURTHER, SPEECH))],
    ids=" ".join,
)
def models(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Every pair that isn't refused, trained and saved once, then loaded by one fresh process."""
    root = tmp_path_factory.mktemp("runs")
    torch.set_num_threads(1)
    outcomes: dict[str, dict[str, Any]] = {}
    for name in models:
        node = model_node(name)
        fresh = build(node)
        sizes = layer_sizes(fresh.backbone)
        waveform = clips(fresh.sample_rate)
        features, mask = fresh.features(waveform, torch.full((len(waveform),), waveform.shape[1]))
        torch.save([features, mask], root / f"{name}.pt")
        with torch.no_grad():
            untouched = fresh.eval().backbone(features, mask)
        for method in METHODS:
            if precheck(model_node(name), choice(method)):
                continue
            model = copy.deepcopy(fresh)
            torch.manual_seed(1)
            injection = inject(model, choice(method), EPOCHS * CLIPS // BATCH_SIZE)
            with torch.no_grad():
                moved = (model.eval().backbone(features, mask) - untouched).abs().max() if method in ADDED else None
            before, after = train(injection, features, mask)
            folder = injection.save(root / f"{name}-{method}", {"model": node}, TASK)
            with torch.no_grad():
                logits = model.backbone(features, mask)
            outcomes[f"{name}-{method}"] = {
                "moved": moved,
                "before": before,
                "after": after,
                "logits": logits,
                "folder": folder,
                "merge": injection.check_merge(features, mask),
                "count": injection.parameters,
                "expected": expected_count(injection, sizes),
            }
    subprocess.run([sys.executable, "-c", RELOAD, str(root)], check=True, timeout=300)
    return outcomes


@pytest.mark.slow
def test_each_pair_trains_or_is_refused(models, trained):
    def check(name, method):
        outcome = trained.get(f"{name}-{method}")
        if outcome is None:
            assert f"peft={method} doesn't fit model={name}: " in precheck(model_node(name), choice(method))
            return
        if method in ADDED:
            assert (outcome["moved"] <= 1e-6) == (method not in CHANGE_THE_START)
        assert outcome["after"] < FALLS_TO * outcome["before"]
        reloaded = torch.load(outcome["folder"] / "reloaded.pt", weights_only=True)
        assert torch.equal(reloaded, outcome["logits"])
        if outcome["merge"] is not None:
            assert outcome["merge"] < 1e-4
        assert outcome["count"]["trainable"] - outcome["count"]["head"] == outcome["expected"]

    check_each(product(models, METHODS), check)


@pytest.mark.slow
def test_refusals_are_few(models, trained):
    assert trained.keys() == {f"{name}-{method}" for name in models for method in set(METHODS) - refused(name)}


# The formulas of docs/peft.md, taken from its table.


def formulas() -> dict[str, str]:
    rows = re.findall(r"^\| `(\w+)` \|.*\| `([^`|]+)` \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def layer_sizes(backbone: nn.Module) -> dict[str, dict[str, int]]:
    """Module name → i, o (inputs, outputs), k (kernel positions), n (its own parameters), bias (those of them)."""
    sizes = {}
    for name, module in backbone.named_modules():
        entry = {"n": sum(parameter.numel() for parameter in module.parameters(recurse=False)), "i": 0, "o": 0, "k": 1}
        if isinstance(module, nn.Linear):
            entry |= {"i": module.in_features, "o": module.out_features}
        elif isinstance(module, nn.Conv2d):
            entry |= {"i": module.in_channels, "o": module.out_channels, "k": math.prod(module.kernel_size)}
        biases = [p for key, p in module.named_parameters(recurse=False) if key.endswith("bias") and p.ndim == 1]
        sizes[name] = {**entry, "bias": sum(bias.numel() for bias in biases)}
    return sizes


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def nearest_divisor(block: int, n: int) -> int:
    return min(divisors(n), key=lambda d: (abs(d - block), d))


def small(n: int) -> int:
    return max(d for d in divisors(n) if d * d <= n)


def expected_count(injection: Injection, sizes: dict[str, dict[str, int]], **changes: int) -> int:
    """What the table's formula says for the adapted modules (for full, head and bitfit: for all outside the head).

    Changes are of keys of the method's node.
    """
    formula = formulas()[injection.options.name]
    head = injection.model.head_name
    outside = [name for name in sizes if name != head and not name.startswith(head + ".")]
    feedforward = set(getattr(injection.config, "feedforward_modules", None) or [])
    functions = {
        "min": min,
        "max": max,
        "ceil": math.ceil,
        "small": small,
        "gcd": math.gcd,
        "nearest_divisor": nearest_divisor,
    }
    fields = {key: value for key, value in injection.node.items() if key.isidentifier()} | changes
    places = getattr(injection.config, "places", {})

    def variables(name: str) -> dict[str, Any]:
        if name in places:  # a sublayer, maybe without a parameter of its own
            place = places[name]
            return {key: place.get(many, place.get("channels")) for key, many in (("i", "inputs"), ("o", "outputs"))}
        return {**sizes[name], "feedforward": name in feedforward}

    return sum(
        eval(formula, {"__builtins__": {}}, {**functions, **fields, **variables(name)})
        for name in injection.targets or outside
    )


def check_budgets(model: AudioModel, injection: Injection, sizes: dict[str, dict[str, int]]) -> None:
    """Hold the size that each budget chooses against the table's formula.

    Args:
        model: Fresh.
        injection: Of the method into a copy of it, at whichever size.
        sizes: Of its layers.
    """
    name, config_class = injection.options.name, get_class(injection.node["_target_"])
    if not declared_size(injection.node):
        return
    size = size_of(choice(name))
    backbone = injection.parameters["backbone"]
    for text, share in {"0.1%": 0.001, "0.3%": 0.003, "1%": 0.01}.items():
        node = plain(choice(name, budget=text))
        chosen = choose_size(model, read(node, None), node, config_class)
        best, wanted = chosen.chosen[size.key], share * backbone

        def away(each: int, wanted: float = wanted) -> float:
            return abs(expected_count(injection, sizes, **{size.key: each}) - wanted)

        case = f"{name} {text} {chosen.chosen}"
        assert chosen.parameters == expected_count(injection, sizes, **{size.key: best}), case
        assert (chosen.warnings() == []) == (away(best) <= wanted / 10), case
        lower = [best - size.step * each for each in (1, 2, 3) if best - size.step * each >= size.least]
        layers = [sizes[place] for place in injection.targets]
        ends = {"randlora": lambda layer: min(layer["i"], layer["o"]), "vera": lambda layer: layer["i"]}
        at_its_end = chosen.warnings() or (name in ends and best == max(map(ends[name], layers)))
        upper = [] if at_its_end else [best + size.step * each for each in (1, 2, 3)]
        assert all(away(best) <= away(each) for each in lower + upper), case


def test_every_method_has_its_formula_in_the_docs():
    assert sorted(formulas()) == methods()


OFFICIAL = [
    *((name, "official", METHODS) for name in MODELS),
    *((name, "official", ["lora"]) for name in (*FURTHER, *SPEECH)),
    ("openbeats", "large", ["lora"]),
]
"""Model, variant, and the methods that are tried on it: one each of the further models, for the time."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant", "tried"), OFFICIAL, ids=[f"{name} {size}" for name, size, _ in OFFICIAL])
def test_official_variants_take_a_step_with_the_documented_count(name, variant, tried):
    whole = build(model_node(name, variant))
    sizes = layer_sizes(whole.backbone)
    waveform = clips(whole.sample_rate, 1)
    features, mask = whole.features(waveform, torch.tensor([waveform.shape[1]]))
    for method in tried:
        if precheck(model_node(name), choice(method)):
            continue
        model = copy.deepcopy(whole)
        injection = inject(model, choice(method), 10)
        assert injection.parameters["trainable"] - injection.parameters["head"] == expected_count(injection, sizes), (
            method
        )
        check_budgets(whole, injection, sizes)
        trainable = {key: p for key, p in model.named_parameters() if p.requires_grad}
        before = {key: parameter.detach().clone() for key, parameter in trainable.items()}
        optimizer = torch.optim.AdamW(trainable.values(), lr=injection.options.learning_rate)
        injection.train_mode()
        loss = cross_entropy(model.backbone(features, mask), torch.tensor([0]))
        loss.backward()
        assert math.isfinite(loss.item()), method
        assert all(parameter.grad is not None for parameter in trainable.values()), method
        optimizer.step()
        injection.after_optimizer_step(1)
        moved = sum(not torch.equal(before[key], parameter) for key, parameter in trainable.items())
        assert moved > len(trainable) / 3, method  # B = 0 holds A still in the first step
