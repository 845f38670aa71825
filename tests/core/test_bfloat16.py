"""bfloat16 on the CPU: near float32 in every kind of network, with float32 wherever sums and states are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.data.datamodule import Batch
from sousa_bench.models.published import sizes
from sousa_bench.sweep.settled_precision import DEPTHWISE
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.run import run
from tests.core.test_run import numbers

BATCH_NORM = nn.modules.batchnorm._BatchNorm
NORMS = (nn.LayerNorm, BATCH_NORM)


def gradients(setup: Setup) -> Tensor:
    """All gradients of a first batch, in one vector."""
    module, [batch, *_] = setup.module, setup.batches(0)
    module.injection.train_mode()
    with setup.autocast:
        module._backward(*module.training_inputs(batch), len(batch.members))
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).double()


@pytest.mark.parametrize(
    ("model", "peft"),
    [
        ("ast", "conformer_adapter"),  # its long convolution in groups has made oneDNN hang
        ("efficientat", "conv_adapter"),
        *(pytest.param(model, "full", marks=pytest.mark.slow) for model in ("hubert", "wavlm", "passt", "cnn")),
    ],
)
def test_gradients_are_near_those_of_float32(config, model, peft):
    words = (f"model={model}", f"peft={peft}", "augmentation=off")
    exact, rounded = (
        gradients(Setup.of(config(*words, f"trainer.precision={precision}"))) for precision in ("32-true", "bf16-mixed")
    )
    assert not torch.equal(exact, rounded)
    assert rounded @ exact / rounded.norm() / exact.norm() > 0.99
    assert 0.9 < rounded.norm() / exact.norm() < 1.1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ast", "efficientat"])
def test_what_is_kept_and_summed_is_float32(config, folder: Path, monkeypatch, model):
    seen: dict[str, set[torch.dtype]] = {"features": set(), "losses": set(), "norms": set()}
    inputs, losses = Classifier.training_inputs, Classifier._losses

    def watched_inputs(self: Classifier, batch: Batch):
        found = inputs(self, batch)
        seen["features"] |= {features.dtype for _, (features, *_) in found[0].passes}
        return found

    def watched_losses(self: Classifier, logits: Tensor, targets: Tensor) -> Tensor:
        seen["losses"].add((found := losses(self, logits, targets)).dtype)
        return found

    def watch(norm: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        """A norm's result is that of float32, rounded once at its end."""
        if not isinstance(norm, NORMS):
            return
        assert not (isinstance(norm, BATCH_NORM) and norm.training)  # of another batch it would tell nothing
        seen["norms"].add(given[0].dtype)
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            exact = type(norm).forward(norm, given[0].float()).to(made.dtype)
        step = torch.finfo(made.dtype).eps * exact.abs().float() + 1e-6  # where float32's last bit decides
        assert ((made.float() - exact.float()).abs() <= step).all()

    monkeypatch.setattr(Classifier, "training_inputs", watched_inputs)
    monkeypatch.setattr(Classifier, "_losses", watched_losses)
    words = (f"model={model}", "peft=lora", "augmentation=on", "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    cfg = config(*words, "trainer.train_batches=2")
    hook = nn.modules.module.register_module_forward_hook(watch)
    try:
        first = numbers(run(cfg, folder), folder)
    finally:
        hook.remove()
    assert seen["features"] == seen["losses"] == {torch.float32}
    assert torch.bfloat16 in seen["norms"]
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    kept = [
        *state["trainable"].values(),
        *(each for part in state["optimizer"]["state"].values() for each in part.values()),
    ]
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float32}
    assert numbers(run(cfg, folder.with_name("again")), folder.with_name("again")) == first


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=[] if model in ("efficientat", "beats") else pytest.mark.slow)
        for model in sorted({model for model, _ in sizes()})
    ],
)
def test_auto_leaves_out_the_networks_whose_convolutions_in_groups_take_bfloat16(config, model):
    seen: set[torch.dtype] = set()

    def watch(module: nn.Module, _: object, found: Tensor) -> None:
        if isinstance(module, (nn.Conv1d, nn.Conv2d)) and module.groups > 1:
            seen.add(found.dtype)

    watching = nn.modules.module.register_module_forward_hook(watch)
    try:
        gradients(Setup.of(config(f"model={model}", "peft=full", "augmentation=off", "trainer.precision=bf16-mixed")))
    finally:
        watching.remove()
    assert (torch.bfloat16 in seen) == (model in DEPTHWISE)
