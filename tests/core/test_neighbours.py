"""What a network makes of a clip depends on that clip alone, whatever stands beside it in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config.instantiate import build
from sousa_bench.data.datamodule import Batch
from tests.cases import check_each

MODELS = ("ast", "htsat", "beats", "efficientat")
FURTHER = ("ced", "dasheng", "eat", "passt", "openbeats")
SPEECH = ("hubert", "wavlm", "whisper")
PARTS = ("gain", "noise", "time_stretch", "spec_augment", "mixup")
ALL_OFF = ["augmentation=on", *(f"augmentation.{part}.enabled=false" for part in PARTS)]
NO_GAIN = [word for word in ALL_OFF if "gain" not in word] + [
    "augmentation.gain.min_db=0",
    "augmentation.gain.max_db=0",
]
AUGMENTATIONS = {
    "off": ["augmentation=off"],
    "on, all off": ALL_OFF,
    "on, of the waveform, by 0 dB": NO_GAIN,
    "on, without mixup": ["augmentation=on", "augmentation.mixup.enabled=false"],
}
TOLERANCE = 1e-5
"""Of logits, absolute: matrix products of other shapes round differently, by 4e-7 here. Neighbours moved them by 0.05
(BEATs), 0.2 (EfficientAT) and 1.4 (AST)."""


def mixed(clips):
    """Short clips and long ones, and not in the order of their lengths."""
    order = np.argsort(clips.padded, kind="stable")
    index = order[[-1, 0, -2, 1]]
    assert len(np.unique(clips.padded[index])) > 1
    return index


def together_and_alone(inputs, index):
    """Logits of clips in one batch, and each by itself."""
    whole = inputs(index)
    alone = torch.cat([inputs(index[[row]]).logits() for row in range(len(index))])
    together = whole.logits()
    assert together.isfinite().all()
    assert len(together.unique(dim=0)) == len(index)
    torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(whole.logits(slice(1, 3)), together[1:3], rtol=0, atol=TOLERANCE)
    return together


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("models", [MODELS, FURTHER, SPEECH], ids=" ".join)
def test_a_clip_in_a_mixed_batch_is_the_clip_alone(config, models):
    def check(model, method):
        words = ("augmentation=off", "data.quantum=0.1")  # fine, so that patches end within a clip
        module = Setup.of(config(f"model={model}", f"peft={method}", "weights=random", *words)).module.eval()
        assert (module.inputs.prefix is None) == (method == "lora")
        together_and_alone(lambda index: module.inputs.plain("test", index), mixed(module.clips["test"]))
        found = {}
        for name, words in AUGMENTATIONS.items() if method == "lora" else ():
            module.inputs.augmentation = build(config(*words).augmentation)
            found[name] = together_and_alone(
                lambda index: module.training_inputs(Batch("train", index, index))[0], mixed(module.clips["train"])
            )
        for name in list(found)[1:-1]:  # nothing is changed: as without
            torch.testing.assert_close(found[name], found["off"], rtol=0, atol=TOLERANCE)

    check_each([*((model, "lora") for model in models), *([("beats", "head")] if "beats" in models else [])], check)
