"""Choices of conf/peft, a fixed batch, and a training loop that does what the real one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import cross_entropy

import sousa_bench.config  # noqa: F401 - lets the files below follow the weights
from sousa_bench.peft import Injection

CONF = Path(__file__).parents[2] / "conf"
LINEAR_ONLY = {"vera", "road", "miss", "fourierft", "randlora"}
TRANSFORMERS_ONLY = {"bottleneck", "conformer_adapter", "convpass", "prefix", "prompt"}
CONVOLUTIONS_ONLY = {"conv_adapter"}
ADDED = [*sorted(TRANSFORMERS_ONLY | CONVOLUTIONS_ONLY), "ssf"]
"""The methods that put modules into a network."""
CHANGE_THE_START = {"prefix", "prompt"}
"""Those of them that don't leave the logits what they were before training."""
BATCH = torch.randn(16, 32 * 12, generator=torch.Generator().manual_seed(7))


def choice(method: str, **overrides: Any) -> DictConfig:
    node = OmegaConf.merge(OmegaConf.load(CONF / "peft" / f"{method}.yaml"), overrides)
    assert isinstance(node, DictConfig)
    return node


def methods() -> list[str]:
    return sorted(file.stem for file in (CONF / "peft").glob("*.yaml"))


def refused(model: str) -> set[str]:
    """The methods that one of our models can't take."""
    if model == "efficientat":
        return LINEAR_ONLY | TRANSFORMERS_ONLY
    return CONVOLUTIONS_ONLY | {"prompt"} if model == "htsat" else CONVOLUTIONS_ONLY


def standin_node(name: str, seed: int = 0) -> dict[str, Any]:
    return {"_target_": "standins.build", "name": name, "seed": seed}


def fit(injection: Injection, steps: int, batch: torch.Tensor = BATCH, start: int = 0) -> list[float]:
    """Train on one batch; the losses are without the method's extra term."""
    torch.manual_seed(start)
    model = injection.model
    features, mask = model.features(batch)
    labels = torch.arange(len(batch)) % 10
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=injection.options.learning_rate)
    injection.train_mode()
    losses = []
    for step in range(start + 1, start + steps + 1):
        loss = cross_entropy(model.backbone(features, mask), labels)
        losses.append(loss.item())
        extra = injection.extra_loss()
        (loss if extra is None else loss + extra).backward()
        optimizer.step()
        injection.after_optimizer_step(step)
        optimizer.zero_grad()
    injection.finish()
    return losses
