"""WavLM, HuBERT and Whisper against transformers' own classes and feature extractors, from folders as on the hub."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from building import CONF, build, clips
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    HubertForCTC,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from sousa_bench.errors import WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.official_file import objection_to, variant_told
from sousa_bench.models.speech import SpeechBackbone
from sousa_bench.models.speech_family import SpeechFamily
from tests.cases import check_each

MODELS = ("hubert", "wavlm", "whisper")
TOLERANCE = 2e-5
"""Of hidden states, absolute; they are of the order of 4."""

SMALL = {"dim": 48, "layers": 2, "heads": 3}
WAVEFORM = {"channels": 16, "dropout": 0.1}
KINDS = {
    "hubert base": {**WAVEFORM, "large": False, "conv_bias": False, "normalize": True},
    "hubert large": {**WAVEFORM, "large": True, "conv_bias": True, "normalize": True},
    "wavlm base": {**WAVEFORM, "large": False, "conv_bias": False, "normalize": False},
    "wavlm large": {**WAVEFORM, "large": True, "conv_bias": False, "normalize": True},
    "whisper": {"bins": 80, "tokens": 150},
    "whisper of 128 bins": {"bins": 128, "tokens": 150},
}
SECONDS = (2.0, 1.37, 0.71, 2.99, 3.0, 3.4)
SECONDS_HEARD = 3
"""What 150 tokens of Whisper are."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What transformers says of each file that it saves."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def family(name: str) -> SpeechFamily:
    return import_module(f"sousa_bench.models.{name}").build.__self__


def official(kind: str, folder: Path, cls: type[PreTrainedModel] | None = None) -> PreTrainedModel:
    """A random model of transformers' class, saved as on the hub, with its feature extractor."""
    name, numbers = kind.split()[0], {**SMALL, **KINDS[kind]}
    own = family(name)
    config = own.config(own.numbers(**numbers))
    extractor: Any
    if name == "whisper":
        ends = {f"{end}_token_id": 1 for end in ("pad", "bos", "eos", "decoder_start")}
        decoder = {"decoder_layers": 1, "decoder_attention_heads": 1, "decoder_ffn_dim": 8, "vocab_size": 10, **ends}
        fields = {key: getattr(config, key) for key in own.network if key != "encoder_attention_heads"}
        config = WhisperConfig(**fields, encoder_attention_heads=SMALL["heads"], **decoder)
        cls = cls or WhisperForConditionalGeneration
        extractor = WhisperFeatureExtractor(feature_size=numbers["bins"], chunk_length=SECONDS_HEARD)
    else:
        config.mask_time_prob = 0.05  # as published, with the vector that stands for what is hidden
        cls = cls or {"hubert": HubertModel, "wavlm": WavLMModel}[name]
        masked = {"do_normalize": numbers["normalize"], "return_attention_mask": numbers["large"]}
        extractor = Wav2Vec2FeatureExtractor(**masked)
    torch.manual_seed(3)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no ones and zeros, which would hide what is not read
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model


def loaded(kind: str, folder: Path, **changes: Any) -> AudioModel:
    """This project's model from the folder, of a variant with the numbers of :data:`SMALL` and :data:`KINDS`."""
    variants = {"tiny": {**SMALL, **KINDS[kind], **changes}}
    return build(kind.split()[0], weights="official", checkpoint=str(folder), variant="tiny", variants=variants).eval()


def backbone_of(model: AudioModel) -> SpeechBackbone:
    assert isinstance(model.backbone, SpeechBackbone)
    return model.backbone


def theirs(model: PreTrainedModel, folder: Path, sounds: list[Tensor]) -> list[Tensor]:
    """Hidden states of transformers' class on what its own feature extractor makes of some sounds."""
    whisper = (folder / "config.json").read_text().count('"whisper"') > 0
    extractor: Any = (WhisperFeatureExtractor if whisper else Wav2Vec2FeatureExtractor).from_pretrained(folder)
    padding = "max_length" if whisper else True
    arrays = [sound.numpy() for sound in sounds]
    inputs = extractor(arrays, sampling_rate=16000, return_tensors="pt", padding=padding)
    out = (model.get_encoder() if whisper else model)(**inputs, output_hidden_states=True)
    return [*out.hidden_states[:-1], out.last_hidden_state]


def difference(ours: list[Tensor], expected: list[Tensor], row: int = 0, expected_row: int = 0) -> float:
    """The largest over all layers and the tokens of a clip, of which ours may be followed by padding."""
    assert len(ours) == len(expected) == SMALL["layers"] + 1
    tokens = expected[0].shape[1]
    return max(
        float((own[row, :tokens] - other[expected_row]).abs().max()) for own, other in zip(ours, expected, strict=True)
    )


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of transformers' WavLM
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_transformers_for_each_clip_alone(kind: str, tmp_path: Path) -> None:
    official_model = official(kind, tmp_path)
    model = loaded(kind, tmp_path)
    waveform, lengths = clips(*SECONDS)
    sounds = [row[:length] for row, length in zip(waveform, lengths.tolist(), strict=True)]
    ours = backbone_of(model).hidden_states(*model.features(waveform, lengths))
    for row, sound in enumerate(sounds):
        expected = theirs(official_model, tmp_path, [sound])
        assert difference(ours, expected, row) < TOLERANCE
        alone = backbone_of(model).hidden_states(*model.features(sound[None]))
        assert difference(alone, expected) < TOLERANCE
    batched = theirs(official_model, tmp_path, sounds)
    assert [x.shape for x in ours] == [x.shape for x in batched]
    own = [(int(length) - 400) // 320 + 1 if "whisper" not in kind else 150 for length in lengths]
    worst = [difference(ours, [x[:, :n] for x in batched], row, row) for row, n in enumerate(own)]
    if kind.endswith("base"):  # whose padding says something officially: more than rounding
        assert max(worst) > 0.1
    else:
        assert max(worst) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("kind", [*KINDS][::2])
def test_the_head_takes_the_mean_of_a_clips_own_tokens_and_a_weighted_sum(kind: str, tmp_path: Path) -> None:
    official_model = official(kind, tmp_path)
    model = loaded(kind, tmp_path)
    head = model.backbone.classifier
    assert model.fresh == ("classifier.dense",)
    assert head.layer_weights.tolist() == [0.0] * 3
    head.layer_weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
    waveform, lengths = clips(1.0, 0.5)
    logits = model(waveform, lengths)
    for row, length in enumerate(lengths.tolist()):
        states = torch.cat(theirs(official_model, tmp_path, [waveform[row, :length]]))
        own = -(-length // 320) if "whisper" in kind else states.shape[1]
        weights = torch.tensor([0.3, -1.0, 2.0]).exp()
        mean = (weights[:, None, None] / weights.sum() * states[:, :own]).sum(0).mean(0)
        torch.testing.assert_close(logits[row], head.dense(head.layernorm(mean)), rtol=0, atol=TOLERANCE)


def test_a_clip_shorter_than_a_token_is_filled_with_silence() -> None:
    for name in MODELS:
        model = build(name).eval()
        waveform, lengths = clips(1.0, 0.01)
        with torch.no_grad():
            together = model(waveform, lengths)
            torch.testing.assert_close(together[1:], model(waveform[1:, :160], lengths[1:]), rtol=0, atol=1e-6)
        assert together.isfinite().all()


@torch.no_grad()
def test_without_filling_whisper_hears_the_clip_and_its_place_on_the_grid_alone(tmp_path: Path) -> None:
    official("whisper", tmp_path)
    whole, cut = loaded("whisper", tmp_path), loaded("whisper", tmp_path, fill=False)
    waveform, lengths = clips(1.0, 0.5)
    features = whole.features(waveform, lengths)
    for ours, tokens in ((whole, 150), (cut, 52)):
        assert backbone_of(ours).hidden_states(*features)[0].shape == (2, tokens, SMALL["dim"])
    assert (whole(waveform, lengths) - cut(waveform, lengths)).abs().max() > 1e-3
    longest, lengths = clips(SECONDS_HEARD)
    torch.testing.assert_close(whole(longest, lengths), cut(longest, lengths))


def test_what_else_is_in_an_official_file_is_passed_over_and_nothing_more(tmp_path: Path) -> None:
    for kind, cls in (("hubert large", HubertForCTC), ("whisper", WhisperModel), ("whisper", WhisperEncoder)):
        folder = tmp_path / cls.__name__
        expected = official(kind, folder, cls)
        state = expected.state_dict()
        key = next(key for key in state if key.endswith("layers.1.final_layer_norm.bias"))
        own = loaded(kind, folder).backbone.state_dict()
        [name] = [name for name in own if name.endswith("layers.1.final_layer_norm.bias")]
        assert torch.equal(own[name], state[key])
        assert loaded(kind, folder).weights.kind == "official"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hubert base", "wavlm large", "whisper"])
def test_each_missing_and_each_further_key_is_an_error(kind: str, tmp_path: Path) -> None:
    official(kind, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    unread = r".*masked_spec_embed|model\.decoder\..*|proj_out.*"

    def check(key: str) -> None:
        save_file({k: v.contiguous() for k, v in whole.items() if k != key}, path)
        with pytest.raises(WeightsError, match=r"missing \([1-6]\)|fits none of|has \w+=|no checkpoint"):
            loaded(kind, tmp_path)

    check_each((key for key in whole if not re.fullmatch(unread, key) and "layers.0.a" not in key), check)
    prefix = "model.encoder." if kind == "whisper" else "encoder."
    save_file({**whole, f"{prefix}layers.1.more.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"unexpected \(1\): trunk\..*layers\.1\.more\.weight"):
        loaded(kind, tmp_path)


def test_names_of_older_files_are_read(tmp_path: Path) -> None:
    """Of a weight-normalised convolution in the files that are on the hub."""
    expected = official("wavlm base", tmp_path)
    state = expected.state_dict()
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        state = {key.replace(f"parametrizations.weight.{new}", old): value for key, value in state.items()}
    assert sum(key.endswith(("weight_g", "weight_v")) for key in state) == 2
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    own = loaded("wavlm base", tmp_path).backbone.state_dict()
    key = "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    assert torch.equal(own[f"trunk.{key}"], expected.state_dict()[key])


@pytest.mark.parametrize(
    ("kind", "file", "changes", "says"),
    [
        ("wavlm base", "config.json", {"num_attention_heads": 4}, r"num_attention_heads=4 \(here 3\)"),
        ("wavlm base", "config.json", {"model_type": "wav2vec2"}, r"model_type='wav2vec2' \(here 'wavlm'\)"),
        ("hubert base", "config.json", {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "conv_stride="),
        ("wavlm base", "preprocessor_config.json", {"do_normalize": True}, r"do_normalize=True \(here False\)"),
        ("whisper", "config.json", {"encoder_attention_heads": 4}, r"encoder_attention_heads=4 \(here 3\)"),
        ("whisper", "preprocessor_config.json", {"hop_length": 320}, r"hop_length=320 \(here 160\)"),
    ],
)
def test_a_folder_that_describes_another_model_is_refused(
    kind: str, file: str, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    official(kind, tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(WeightsError, match=rf"{file} describes another model than .*{says}"):
        loaded(kind, tmp_path)


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"model_type": "wavlm", "hidden_size": "x"}', '{"model_type": "wavlm", "dtype": "none"}'],
)
def test_an_odd_config_is_one_message(content: str, tmp_path: Path) -> None:
    official("wavlm base", tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"config\.json can't be read"):
        loaded("wavlm base", tmp_path)
    node = OmegaConf.to_container(OmegaConf.load(CONF / "wavlm.yaml"), resolve=False)
    assert isinstance(node, dict)
    node |= {"weights": "official", "checkpoint": str(tmp_path), "variants": {"mine": {**SMALL, **KINDS["wavlm base"]}}}
    assert objection_to(node) is None  # so it is said by the run


@pytest.mark.parametrize("name", ["hubert", "wavlm", "openbeats"])
def test_a_time_stretch_may_leave_less_of_a_clip_than_a_token_takes(name: str) -> None:
    model = build(name).eval()
    features, mask = model.features(torch.rand(2, 8000) - 0.5, torch.tensor([400, 8000]))
    assert mask is not None
    mask[0, 3:] = True
    with torch.no_grad():
        assert model.backbone(features, mask).isfinite().all()


def test_a_file_that_was_trained_for_something_else_has_no_known_pretraining(tmp_path: Path) -> None:
    official("hubert base", tmp_path)
    assert loaded("hubert base", tmp_path).weights.pretraining == "speech"
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "lm_head.weight": torch.zeros(9, 4), "lm_head.bias": torch.zeros(9)}, path)
    assert loaded("hubert base", tmp_path).weights.pretraining is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_told_before_anything_starts(kind: str, tmp_path: Path) -> None:
    name = kind.split()[0]
    official(kind, tmp_path)
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False)
    assert isinstance(node, dict)
    numbers = {**SMALL, **KINDS[kind]}
    others = {**node["variants"], "other": {**numbers, "heads": 4}, "mine": numbers}  # what no shape tells apart
    node |= {"weights": "official", "checkpoint": str(tmp_path), "variants": others}
    assert variant_told(node) == "mine"
    said = str(objection_to({**node, "variant": "other"}))
    assert "has heads=3, where model.variant=other has 4: leave model.variant out" in said
    if "normalize" in numbers:
        others["mine"] = {**numbers, "normalize": not numbers["normalize"]}
        assert f"has normalize={numbers['normalize']}" in str(objection_to({**node, "variant": "mine"}))


@pytest.mark.parametrize(
    ("name", "variant", "parameters"),
    [
        ("hubert", "official", 94_371_712 - 768),  # without the vector that stands for what pretraining hides
        ("hubert", "hubert-large", 315_438_720 - 1024),
        ("wavlm", "official", 94_381_936 - 768),
        ("wavlm", "wavlm-large", 315_453_120 - 1024),
        ("whisper", "official", 20_590_592),
        ("whisper", "whisper-large-v3", 636_968_960),
    ],
)
def test_published_sizes(name: str, variant: str, parameters: int) -> None:
    numbers = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml").variants[variant], resolve=True)
    own = family(name)
    with torch.device("meta"):
        backbone = own.backbone(own.numbers(**numbers), 527)  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in backbone.trunk.parameters()) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_everything_and_checkpointing_changes_none(name: str) -> None:
    model = build(name).train()
    torch.nn.init.normal_(model.backbone.classifier.layer_weights)
    frugal = copy.deepcopy(model.backbone)
    frugal.enable_gradient_checkpointing()
    waveform, lengths = clips(1.0, 0.7)
    features = model.features(waveform, lengths)
    for backbone in (model.backbone, frugal):
        backbone(*features).square().sum().backward()
    for (key, one), two in zip(model.backbone.named_parameters(), frugal.parameters(), strict=True):
        assert one.grad is not None or key == "trunk.embed_positions.weight", key  # fixed, as published
        assert one.grad is None or one.grad.any() or key.endswith("k_proj.bias"), key  # cancels in the softmax
        assert one.grad is None or torch.equal(one.grad, two.grad), key


@pytest.mark.parametrize("name", MODELS)
def test_the_random_start_tells_sounds_apart_and_follows_from_the_seed(name: str) -> None:
    model, again, other = build(name).eval(), build(name), build(name, seed=2)
    assert model.weights == again.weights != other.weights
    waveform, lengths = clips(1.0, 1.0)
    waveform[1] = torch.sin(torch.arange(16000) / 16000 * 2 * torch.pi * 440) * 0.1
    with torch.no_grad():
        [means] = model.backbone.until(None, *model.features(waveform, lengths))
    vectors = means.mean(dim=1)
    assert (vectors[0] - vectors[1]).norm() > 0.05 * vectors[0].norm()
