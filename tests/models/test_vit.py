"""The further models and the vision transformer of most: against timm's blocks, strict files, each in its own way."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from building import CONF, build, clips
from omegaconf import OmegaConf
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from sousa_bench.errors import DataError, WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.ced import CedBackbone
from sousa_bench.models.official_file import recognise, variant_told
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.vit import Block, FixedPositions, Size, VisionTransformer
from sousa_bench.peft import precheck
from tests.cases import check_each
from tests.parity.reference import table

MODELS = ("ced", "dasheng", "eat", "passt")
FURTHER = (*MODELS, "openbeats")
SIZE = {"dim": 32, "layers": 2, "heads": 2}
FILES = {  # model → key tables of its official files, and whether there is a head in each
    "ced": {"keys.json": True, "keys_original.json": True},
    "dasheng": {"keys.json": False, "keys_audioset.json": True, "keys_original.json": False},
    "eat": {"keys.json": True},
    "passt": {"keys.json": True},
}
OFFICIAL_DIM = 768
CHECKED = "window|mel_scale"  # what a file holds that the front end makes itself


def small(name: str, path: Path, **options: object) -> AudioModel:
    variants = OmegaConf.load(CONF / f"{name}.yaml").variants
    own = {**OmegaConf.to_container(variants.official, resolve=True), **SIZE}  # type: ignore[dict-item]
    return build(name, weights="official", checkpoint=str(path), variants={"official": own}, **options)  # type: ignore[arg-type]


def official_state(name: str, keys: str, classes: int = 527) -> dict[str, Tensor]:
    """Tensors of an official file with its width, depth and classes cut down."""
    generator, state = torch.Generator().manual_seed(0), {}
    for entry in table(name, keys)["keys"]:
        block = re.search(r"blocks\.(\d+)\.", entry["key"])
        if block and int(block[1]) >= SIZE["layers"]:
            continue
        if entry["key"].endswith("positions"):
            state[entry["key"]] = FixedPositions(SIZE["dim"], 8, 768).table(768).flatten(0, 1)[None]
            continue
        ratio = OFFICIAL_DIM // SIZE["dim"]
        fixed = re.search(CHECKED, entry["key"])
        shape = entry["shape"] if fixed else [n // ratio if n % OFFICIAL_DIM == 0 and n else n for n in entry["shape"]]
        shape = [classes if n == 527 else n for n in shape]
        integer = entry.get("dtype") == "int64" or entry["key"].endswith("num_batches_tracked")
        state[entry["key"]] = (
            torch.zeros(shape, dtype=torch.int64) if integer else torch.randn(shape, generator=generator) * 0.2
        )
    return state


def write(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "official.pt"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("post_norm", [False, True])
def test_a_block_is_timms_to_the_last_digit(post_norm: bool) -> None:
    """Timm's has its norms before; the other order is its parts in that order."""
    own, theirs = Block(Size(48, 1, 3), post_norm), TimmBlock(48, 3, qkv_bias=True, norm_layer=nn.LayerNorm)
    attention, state = own.attention, own.state_dict()
    for kind in ("weight", "bias"):
        parts = [state.pop(f"attention.{letter}_proj.{kind}") for letter in "qkv"]
        state[f"attn.qkv.{kind}"] = torch.cat(parts)
        state[f"attn.proj.{kind}"] = state.pop(f"attention.o_proj.{kind}")
    theirs.load_state_dict(state)
    for norm in (theirs.norm1, theirs.norm2):
        norm.eps = 1e-6
    x = torch.randn(2, 17, 48)
    assert attention.scale == theirs.attn.scale
    with torch.no_grad():
        if post_norm:
            middle = theirs.norm1(x + theirs.attn(x))
            expected = theirs.norm2(middle + theirs.mlp(middle))
        else:
            expected = theirs(x)
        torch.testing.assert_close(own(x), expected, rtol=0, atol=1e-6)


UNREAD = r"front_end|num_batches_tracked|head_dist"
FILE_CASES = [(name, keys, head) for name, files in FILES.items() for keys, head in files.items()]


@pytest.mark.parametrize(("name", "keys", "head"), FILE_CASES)
def test_a_file_fills_all_but_a_new_head(name: str, keys: str, head: bool, tmp_path: Path) -> None:
    state = official_state(name, keys)
    path = write(tmp_path, state)
    model = small(name, path)
    assert model.fresh == ("classifier.dense",)
    norm = model.backbone.classifier.layernorm
    assert norm.weight.eq(1).all() == (not head)
    assert model.weights.pretraining == ("AudioSet labels" if head else "self-supervised")
    fused = next(value for key, value in state.items() if key.endswith("blocks.1.attn.qkv.weight"))
    assert torch.equal(model.backbone.layers[1].attention.v_proj.weight, fused.chunk(3)[2])
    if head:
        kept = small(name, path, num_classes=None)
        assert kept.backbone.classifier.dense.out_features == 527
        assert len(kept.classes) == 527
        assert small(name, write(tmp_path, official_state(name, keys, classes=50))).weights.pretraining is None


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_missing_and_each_further_key_is_an_error(name: str, tmp_path: Path) -> None:
    whole = official_state(name, next(keys for keys, head in FILES[name].items() if head))

    def check(key: str) -> None:
        with pytest.raises(WeightsError, match=r"missing \([13]\)|fits none of|is missing or another"):
            small(name, write(tmp_path, {k: v for k, v in whole.items() if k != key}), num_classes=None)

    check_each((key for key in whole if not re.search(UNREAD, key) and "blocks.0" not in key), check)
    more = next(key for key in whole if key.endswith("blocks.1.mlp.fc1.bias")).replace("fc1", "fc3")
    path = write(tmp_path, whole | {more: torch.zeros(128)})
    with pytest.raises(WeightsError, match=r"unexpected \(1\): layers\.1\.mlp\.fc3\.bias"):
        small(name, path)


@pytest.mark.parametrize("name", MODELS)
def test_the_random_start_tells_sounds_apart_and_follows_from_the_seed(name: str) -> None:
    model, again, other = build(name), build(name), build(name, seed=2)
    assert model.weights == again.weights != other.weights
    waveform, lengths = clips(1.0, 1.0, rate=model.sample_rate)
    with torch.no_grad():
        vectors = model.eval().backbone.embedding(*model.features(waveform * torch.tensor([[1.0], [0.05]]), lengths))
    assert (vectors[0] - vectors[1]).norm() > 0.05 * vectors[0].norm()


@pytest.mark.parametrize("name", FURTHER)
def test_a_clip_with_longer_neighbours_is_the_clip_alone(name: str) -> None:
    model = build(name).eval()
    waveform, lengths = clips(2.0, 1.28, rate=model.sample_rate)
    with torch.no_grad():
        together, alone = model(waveform, lengths), model(waveform[1:], lengths[1:])
        torch.testing.assert_close(together[1:], alone)
        longest = torch.cat([waveform] * 6, dim=1)  # above what goes through at once
        torch.testing.assert_close(model(longest)[1:], model(longest[1:]))


@pytest.mark.parametrize("name", FURTHER)
def test_gradients_reach_everything_and_checkpointing_changes_none(name: str) -> None:
    model = build(name).train()
    frugal = copy.deepcopy(model.backbone)
    frugal.enable_gradient_checkpointing()
    waveform, lengths = clips(1.0, 0.7, rate=model.sample_rate)
    features = model.features(waveform, lengths)
    for backbone in (model.backbone, frugal):
        backbone(*features).square().sum().backward()
    for (key, one), two in zip(model.backbone.named_parameters(), frugal.parameters(), strict=True):
        assert one.grad is not None, key
        assert one.grad.any() or key.endswith("k_proj.bias"), key  # a bias of all keys cancels in the softmax
        assert torch.equal(one.grad, two.grad), key


@pytest.mark.parametrize("name", MODELS)
def test_sizes(name: str) -> None:
    tiny = build(name)
    assert isinstance(tiny.backbone, VisionTransformer)
    assert 0.4e6 < sum(p.numel() for p in tiny.parameters()) < 0.6e6


@pytest.mark.parametrize("name", ["hubert", "wavlm", "whisper"])
def test_weights_that_the_package_has_not_are_refused_before_anything_starts(name: str) -> None:
    model = {"name": name, "weights": "embedded", "_target_": f"sousa_bench.models.{name}.build"}
    lora = OmegaConf.load(CONF.parent / "peft" / "head.yaml")
    assert f"ships no embedded weights for model={name}" in str(precheck(model, lora))
    assert precheck({**model, "weights": "random"}, lora) is None
    assert precheck({**model, "checkpoint": "pretrained"}, lora) is None
    with pytest.raises(WeightsError, match=f"ships no embedded weights for model={name} .*Use weights=random"):
        build(name, weights="embedded")


@pytest.mark.parametrize(("name", "variant"), [("openbeats", None), ("eat", "tiny"), ("ced", None)])
def test_official_weights_that_nobody_can_fetch_are_refused_before_anything_starts(
    name: str, variant: str | None, tmp_path: Path
) -> None:
    own = {"seed": 1, "weights": "official", "model": OmegaConf.load(CONF / f"{name}.yaml")}
    node = OmegaConf.to_container(OmegaConf.create(own).model, resolve=True)
    assert isinstance(node, dict)
    head = OmegaConf.load(CONF.parent / "peft" / "head.yaml")
    reason = precheck({**node, "variant": variant}, head)
    if name == "ced":  # its address stands in the config
        assert reason is None
        return
    assert f"no official weights of model={name} model.variant={variant or 'official'} are fetched" in str(reason)
    assert precheck({**node, "variant": variant, "checkpoint": str(tmp_path / "x.pt")}, head) is None
    with pytest.raises(WeightsError, match=r"give model\.checkpoint=FILE"):
        build(name, weights="official", variant=variant)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_says_whether_a_program_can_fetch_it(name: str) -> None:
    own = {"seed": 1, "weights": "official", "model": OmegaConf.load(CONF / f"{name}.yaml")}
    node = OmegaConf.to_container(OmegaConf.create(own).model, resolve=True)
    assert isinstance(node, dict)
    refused = precheck(node, OmegaConf.load(CONF.parent / "peft" / "head.yaml"))
    assert (refused is None) is PUBLISHED[name].fetched


@pytest.mark.slow
def test_the_command_refuses_them_in_one_message(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sousa_bench.train", "model=whisper"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "ships no embedded weights for model=whisper" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "variant", "parameters"),
    [
        ("ced", "ced-tiny", 5_503_183),
        ("ced", "ced-mini", 9_696_655),
        ("ced", "ced-small", 21_622_543),
        ("ced", "ced-base", 85_711_759),
        ("dasheng", "official", 85_447_808 + 406_799),
        ("dasheng", "dasheng-06B", 630_333_568 + 2 * 1280 + 527 * 1281),
        ("dasheng", "dasheng-12B", 1_134_047_360 + 2 * 1536 + 527 * 1537),
        ("eat", "official", 90_379_535 - 4_718_592),  # without the fixed positions
        ("eat", "eat-large", 309_409_295 - 6144 * 1024),
        ("passt", "official", 86_153_758 - 769 * 527),  # without the head that nothing calls
        ("openbeats", "official", 90_312_448 - 656 + 769 * 527),  # without the two kernels of the padding mask
        ("openbeats", "large", 311_377_232 - 656 + 540_175),
    ],
)
def test_published_sizes(name: str, variant: str, parameters: int) -> None:
    with torch.device("meta"):
        numbers = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml").variants[variant], resolve=True)
        backbone = build_on_meta(name, numbers)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters


def build_on_meta(name: str, numbers: object) -> nn.Module:
    from importlib import import_module

    family = import_module(f"sousa_bench.models.{name}").build.__self__
    return family.backbone(family.numbers(**numbers), 527)


def test_a_long_clips_pieces_are_those_of_its_parts() -> None:
    """CED fills the last piece with zeros after its BatchNorm; Dasheng leaves it short."""
    for name, columns in (("ced", 3 * 63 * 4), ("dasheng", (2 * 1008 + 300) // 4)):
        backbone = build(name).eval().backbone
        assert isinstance(backbone, CedBackbone)
        seen: list[Tensor] = []
        backbone.norm.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(output))
        with torch.no_grad():
            backbone(torch.randn(2, 2 * backbone.frames + 300, 64) * 20 - 20)
            exact = torch.randn(1, 2 * backbone.frames, 64) * 20 - 20
            halves = [backbone.embedding(half) for half in exact.split(backbone.frames, dim=1)]
            torch.testing.assert_close(backbone.embedding(exact), sum(halves) / 2)  # no piece is lost
        assert sum(part.shape[1] for part in seen[:3]) == columns


def test_patchout_leaves_rows_and_columns_out_in_training_alone() -> None:
    backbone = build("passt", patchout_time=10, patchout_frequency=3).backbone
    features = torch.randn(2, 400, 128)
    rows, columns = 8, (400 - 16) // 16 + 1
    with torch.no_grad():
        assert backbone.eval().embed(features).shape[1] == 2 + rows * columns
        backbone.train()
        torch.manual_seed(0)
        first = backbone.embed(features)
        assert first.shape[1] == 2 + (rows - 3) * (columns - 10)
        assert not torch.equal(first, backbone.embed(features))
        torch.manual_seed(0)
        assert torch.equal(first, backbone.embed(features))
        assert backbone.embed(features[:, :32]).shape[1] == 2 + (rows - 3) * 1  # one column stays


def test_another_table_of_positions_is_refused(tmp_path: Path) -> None:
    state = official_state("eat", "keys.json")
    [key] = [key for key in state if key.endswith("positions")]
    with pytest.raises(WeightsError, match=r"its table of positions .* another one"):
        small("eat", write(tmp_path, state | {key: state[key].roll(8, -1)}))


def test_rows_after_a_clips_end_are_the_official_zeros() -> None:
    """EAT's, like AST's: zero before normalising, up to whole patches."""
    model = build("eat")
    waveform, lengths = clips(1.0, 0.5)
    features, mask = model.features(waveform, lengths)
    assert mask is None
    assert features.shape[1] == 112
    own = 1 + (8000 - 400) // 160
    assert features[1, own:].eq(model.frontend.pad_value).all()
    assert features[1, :own].ne(model.frontend.pad_value).any(dim=1).all()
    assert model.frontend.pad_value == pytest.approx(0.46706, abs=1e-5)


def test_a_clip_shorter_than_a_patch_is_one_message() -> None:
    with pytest.raises(DataError, match="shorter than one patch of 16"):
        build("ced")(torch.zeros(1, 1000))


def test_a_variant_follows_from_the_file(tmp_path: Path) -> None:
    state = {key: value for key, value in official_state("ced", "keys.json").items() if "blocks" not in key}
    blocks = {f"encoder.blocks.{i}.mlp.fc1.bias": torch.zeros(1) for i in range(12)}
    for dim, variant in ((192, "ced-tiny"), (384, "ced-small"), (768, "official")):
        kernel = {"encoder.patch_embed.proj.weight": torch.zeros(dim, 1, 16, 16)}
        path = write(tmp_path, state | blocks | kernel)
        node = OmegaConf.to_container(OmegaConf.load(CONF / "ced.yaml"), resolve=False)
        assert isinstance(node, dict)
        assert variant_told({**node, "weights": "official", "checkpoint": str(path)}) == variant


def test_nobodys_file_is_none_of_theirs() -> None:
    from sousa_bench.models.checkpoint_contents import Contents

    assert recognise(Contents({"blocks.0.norm1.weight": (768,), "patch_embed.proj.weight": (768, 3, 16, 16)})) is None
