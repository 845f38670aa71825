"""The small CNN: its size, what it hears of a clip, and that it starts from nothing alone."""

from __future__ import annotations

import pytest
import torch
from building import build, clips

from sousa_bench.errors import ConfigError
from sousa_bench.results.result import read_result
from tests.trained import SMALL, command, home


def test_it_is_small_and_its_logits_are_those_of_its_parts() -> None:
    model = build("cnn").eval()
    assert 0.25e6 < sum(parameter.numel() for parameter in model.parameters()) < 0.35e6
    waveform, lengths = clips(2.0, 1.0, rate=model.sample_rate)
    with torch.no_grad():
        features, mask = model.features(waveform, lengths)
        whole = model.backbone(features, mask)
        assert whole.shape == (2, 40)
        for place in (None, "blocks.0", "blocks.2"):
            state = model.backbone.until(place, features, mask)
            assert torch.equal(model.backbone.onward(place, state), whole)
        alone = model.backbone(features[1:])
    torch.testing.assert_close(alone, whole[1:])


@pytest.mark.parametrize("weights", ["official", "embedded"])
def test_there_are_no_weights_for_it(weights: str) -> None:
    with pytest.raises(ConfigError, match=f"there are no {weights} weights of model=cnn: give weights=random"):
        build("cnn", weights=weights)


@pytest.mark.slow
def test_the_command_trains_it_from_nothing_and_refuses_the_rest() -> None:
    words = [word for word in SMALL if word.split("=")[0] not in ("model", "peft", "trainer.precision", "weights")]
    done = command("train", "-m", *words, "model=cnn", "weights=random,embedded", "peft=full,lora", "sweep=cnn")
    said = done.stdout + done.stderr
    [folder] = [file.parent for file in (home() / "multirun" / "cnn").glob("*/result.json")]
    result = read_result(folder)
    assert result["status"] == "completed", said
    assert (result["config"]["strategy"], result["weights"]["kind"]) == ("full", "random")
    assert result["efficiency"]["trainable_params"] == result["efficiency"]["total_params"]
    assert "there are no embedded weights of model=cnn: give weights=random" in said
    assert "model=cnn begins at random weights, in which such a method adapts nothing: give peft=full" in said
