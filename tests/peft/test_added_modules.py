"""Methods that put modules into a network: the papers' equations written a second time, and what they promise."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from itertools import product

import peft
import pytest
import torch
from helpers import ADDED, BATCH, CHANGE_THE_START, CONVOLUTIONS_ONLY, choice, fit, refused, standin_node
from standins import Attention, Transformer, build
from test_methods import FURTHER, MODELS, SPEECH, clips, model_node
from test_methods import build as build_ours
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import cross_entropy

from sousa_bench.errors import PeftError
from sousa_bench.models.base import TokenGrid
from sousa_bench.models.swin import join_windows, split_windows
from sousa_bench.peft import inject, load_run_model, precheck
from sousa_bench.peft.adapter import warm_start
from sousa_bench.peft.added_options import PrefixConfig
from sousa_bench.peft.added_tuner import PREFIX, AddedLayer, insert
from sousa_bench.peft.attention_prefix import AttentionPrefix
from sousa_bench.peft.injection import finished
from sousa_bench.task import Task

PADDING_SAYS_NOTHING = {"dasheng", "htsat", "hubert", "openbeats", "wavlm", "whisper"}
"""Models in which a clip gives the same behind whatever length of padding."""
TASK = Task(tuple(map(str, range(10))))
Branch = Callable[[int, Tensor, Tensor], Tensor]
"""Block, a sublayer's input and its output → what is added to the residual."""


def normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def affine(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, w[f"{name}.weight"]) + w[f"{name}.bias"]


def plain_branch(block: int, before: Tensor, after: Tensor) -> Tensor:
    return after


def toy_block(
    w: dict[str, Tensor],
    i: int,
    x: Tensor,
    attention: Branch,
    ffn: Branch,
    others: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """A block of the stand-in, head by head; its tokens attend to further keys and values (batch, tokens, dim), too.

    What they say is mixed with what the tokens say as the sums of exponentials stand to each other (He et al. 2022,
    arXiv:2110.04366, equation 6).
    """
    h = normed_before(w, i, x)
    heads = []
    for head, q in enumerate(affine(w, f"blocks.{i}.attention.query", h).chunk(2, -1)):
        spoken, weights = [], []
        for keys, values in (keys_and_values(w, i, x), *others):
            scores = torch.einsum("btd,bsd->bts", q, keys.chunk(2, -1)[head]) / 4
            spoken.append(torch.softmax(scores, -1) @ values.chunk(2, -1)[head])
            weights.append(scores.exp().sum(-1, keepdim=True))
        heads.append(sum(a * b for a, b in zip(spoken, weights, strict=True)) / sum(weights))
    x = x + attention(i, h, affine(w, f"blocks.{i}.attention.out", torch.cat(heads, -1)))
    h = normed(x, w[f"blocks.{i}.norm2.weight"], w[f"blocks.{i}.norm2.bias"])
    return x + ffn(i, h, affine(w, f"blocks.{i}.mlp.fc2", gelu(affine(w, f"blocks.{i}.mlp.fc1", h))))


def normed_before(w: dict[str, Tensor], i: int, x: Tensor) -> Tensor:
    return normed(x, w[f"blocks.{i}.norm1.weight"], w[f"blocks.{i}.norm1.bias"])


def keys_and_values(w: dict[str, Tensor], i: int, x: Tensor) -> tuple[Tensor, Tensor]:
    h = normed_before(w, i, x)
    return affine(w, f"blocks.{i}.attention.key", h), affine(w, f"blocks.{i}.attention.value", h)


def toy_head(w: dict[str, Tensor], x: Tensor) -> Tensor:
    return affine(w, "head", normed(x, w["norm.weight"], w["norm.bias"]).mean(1))


def toy_transformer(w: dict[str, Tensor], features: Tensor, attention: Branch, ffn: Branch) -> Tensor:
    """The stand-in's equations, from its weights alone."""
    x = affine(w, "stem", features)
    for i in range(3):
        x = toy_block(w, i, x, attention, ffn)
    return toy_head(w, x)


def plainly(model: str, method: str, **overrides):
    """An injection whose new parameters are all drawn at random, and its weights by the network's own names."""
    torch.manual_seed(4)
    injection = inject(build(model, 10), choice(method, **overrides), 10)
    injection.model.eval()
    weights = {}
    for name, parameter in injection.model.backbone.named_parameters():
        if ".added_modules." in name:
            torch.nn.init.normal_(parameter, std=0.3)
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default", "")
        plain = re.sub(
            r"\.added_modules(\.inner|\.tokens|(?=\.(keys|values)))", ".new", plain.replace(".modules_to_save", "")
        )
        if "original_module" not in plain:
            weights[plain] = parameter
    return injection, weights


def compare(injection, weights: dict[str, Tensor], second: Callable[[dict[str, Tensor], Tensor], Tensor]) -> None:
    """Logits, and gradients of all that trains."""
    features, mask = injection.model.features(BATCH[:4])
    labels = torch.arange(4)
    first = injection.model.backbone(features, mask)
    mine = {name: parameter.detach().clone().requires_grad_() for name, parameter in weights.items()}
    logits = second(mine, features)
    torch.testing.assert_close(logits, first, rtol=1e-4, atol=1e-5)
    cross_entropy(first, labels).backward()
    cross_entropy(logits, labels).backward()
    trained = [name for name, parameter in weights.items() if parameter.requires_grad]
    assert len([name for name in trained if ".new" in name]) == len(trained) - 2
    for name in trained:
        assert weights[name].grad.abs().max() > 1e-6, name
        torch.testing.assert_close(mine[name].grad, weights[name].grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("form", ["sequential", "parallel"])
@pytest.mark.parametrize("where", ["ffn", "attention", "both"])
def test_bottleneck_is_what_its_papers_write(where, form, activation):
    scale = "learnt" if where == "both" else 0.5
    overrides = {"where": where, "form": form, "activation": activation, "scale": scale}
    injection, weights = plainly("transformer", "bottleneck", **overrides)
    assert len(injection.targets) == (6 if where == "both" else 3)

    def second(w: dict[str, Tensor], features: Tensor) -> Tensor:
        def branch(sublayer: str) -> Branch:
            def change(block: int, before: Tensor, after: Tensor) -> Tensor:
                place = f"blocks.{block}.{sublayer}.new"
                if f"{place}.down.weight" not in w:
                    return after
                read = before if form == "parallel" else after
                low = read @ w[f"{place}.down.weight"].T + w[f"{place}.down.bias"]
                low = gelu(low) if activation == "gelu" else low.clamp(min=0)
                return after + w.get(f"{place}.scale", 0.5) * (low @ w[f"{place}.up.weight"].T + w[f"{place}.up.bias"])

            return change

        return toy_transformer(w, features, branch("attention"), branch("mlp"))

    compare(injection, weights, second)


@pytest.mark.parametrize("layers", ["all", "first_2", "last_2", "last_1"])
@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_prompts_are_what_their_paper_writes(depth, layers):
    """The clip's tokens and the prompts as two streams: in a block each attends to both."""
    injection, weights = plainly("transformer", "prompt", depth=depth, length=5, layers=layers)
    chosen = {"all": [0, 1, 2], "first_2": [0, 1], "last_2": [1, 2], "last_1": [2]}[layers]
    assert injection.targets == [f"blocks.{i}" for i in chosen]
    assert injection.parameters["adapter"] == 5 * 32 * (len(chosen) if depth == "deep" else 1)

    def second(w: dict[str, Tensor], features: Tensor) -> Tensor:
        x, prompts = affine(w, "stem", features), None
        for i in range(3):
            if i not in chosen:
                x = toy_block(w, i, x, plain_branch, plain_branch)
                continue
            if f"blocks.{i}.new" in w:
                prompts = w[f"blocks.{i}.new"].repeat(len(features), 1, 1)
            own, theirs = keys_and_values(w, i, x), keys_and_values(w, i, prompts)
            if depth == "shallow":
                following = toy_block(w, i, prompts, plain_branch, plain_branch, [own])
            x = toy_block(w, i, x, plain_branch, plain_branch, [theirs])
            if depth == "shallow":
                prompts = following
        return toy_head(w, x)

    compare(injection, weights, second)


@pytest.mark.parametrize("layers", ["all", "last_2"])
def test_prefix_is_what_its_paper_writes(layers):
    injection, weights = plainly("transformer", "prefix", length=5, layers=layers)
    assert injection.parameters["adapter"] == 2 * 5 * 32 * len(injection.targets)

    def second(w: dict[str, Tensor], features: Tensor) -> Tensor:
        x = affine(w, "stem", features)
        for i in range(3):
            new = [w[f"blocks.{i}.attention.new.{part}"] for part in ("keys", "values") if i or layers == "all"]
            others = [(new[0].repeat(len(x), 1, 1), new[1].repeat(len(x), 1, 1))] if new else []
            x = toy_block(w, i, x, plain_branch, plain_branch, others)
        return toy_head(w, x)

    compare(injection, weights, second)


def places_of(grid: TokenGrid, tokens: int) -> list[tuple[int, int] | None]:
    """Row of frequency and column of time of each token; None of a special one."""
    across = (tokens - grid.special) // (grid.rows * grid.pieces)
    found: list[tuple[int, int] | None] = [None] * grid.special
    for index in range(tokens - grid.special):
        if grid.time_major:
            found.append((index % grid.rows, index // grid.rows))
        else:
            line, column = divmod(index, across)
            found.append((line % grid.rows, line // grid.rows * across + column))
    return found


def convolved(x: Tensor, grid: TokenGrid, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution over frequency and time, tap by tap; weight (outputs, inputs, frequency, time)."""
    places = places_of(grid, x.shape[1])
    at = {place: index for index, place in enumerate(places) if place is not None}
    high, wide = weight.shape[2] // 2, weight.shape[3] // 2
    made = []
    for index, place in enumerate(places):
        total = x[:, index] @ weight[:, :, high, wide].T + bias
        for up in range(-high, high + 1):
            for on in range(-wide, wide + 1):
                there = at.get((place[0] + up, place[1] + on)) if place is not None and (up, on) != (0, 0) else None
                if there is not None:
                    total = total + x[:, there] @ weight[:, :, high + up, wide + on].T
        made.append(total)
    return torch.stack(made, 1)


GRIDS = [TokenGrid(3), TokenGrid(5, special=2), TokenGrid(2, special=2, time_major=True), TokenGrid(2, pieces=3)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("method", ["conformer_adapter", "convpass"])
def test_convolutions_over_the_grid_are_what_their_papers_write(method, grid, monkeypatch):
    monkeypatch.setattr(Transformer, "token_grid", lambda self, block: grid)
    own = {"where": "both", "form": "parallel", "scale": "learnt", "width": 4}
    kernel = {"kernel": 5} if method == "conformer_adapter" else {}
    injection, weights = plainly("transformer", method, **own, **kernel)

    def second(w: dict[str, Tensor], features: Tensor) -> Tensor:
        def branch(sublayer: str) -> Branch:
            def change(block: int, before: Tensor, after: Tensor) -> Tensor:
                place = f"blocks.{block}.{sublayer}.new"
                low = before @ w[f"{place}.down.weight"].T + w[f"{place}.down.bias"]
                kernel, bias = w[f"{place}.convolution.weight"], w[f"{place}.convolution.bias"]
                if method == "convpass":
                    low = convolved(low / (1 + torch.exp(-1.702 * low)), grid, kernel, bias)
                    low = low / (1 + torch.exp(-1.702 * low))
                else:
                    low = low[..., :4] / (1 + torch.exp(-low[..., 4:]))
                    dense = torch.diag_embed(kernel[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
                    low = convolved(low, grid, dense, bias)
                    low = normed(low, w[f"{place}.norm.weight"], w[f"{place}.norm.bias"])
                    low = low / (1 + torch.exp(-low))
                return after + w[f"{place}.scale"] * (low @ w[f"{place}.up.weight"].T + w[f"{place}.up.bias"])

            return change

        return toy_transformer(w, features, branch("attention"), branch("mlp"))

    compare(injection, weights, second)


@pytest.mark.parametrize(
    ("name", "block", "frames"),
    [
        ("ast", "trunk.layers.0", 500),
        ("htsat", "trunk.layers.0.blocks.0", 1024),
        ("beats", "encoder.layers.0", 480),
        ("ced", "layers.0", 480),
        ("dasheng", "layers.0", 480),
        ("eat", "layers.0", 480),
        ("passt", "layers.0", 480),
    ],
)
def test_tokens_lie_where_a_model_says(name, block, frames):
    """A burst in one place of the features reaches the token that stands for that place."""
    model = build_ours(model_node(name))
    backbone = model.backbone.eval()
    bins = model.features(clips(model.sample_rate, 1))[0].shape[2]
    seen = []
    backbone.get_submodule(block).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1, -2)))
    quiet = torch.zeros(1, frames, bins)
    grid = backbone.token_grid(block)
    for row, when in product({0, grid.rows // 2, grid.rows - 1}, (0.1, 0.6, 0.9)):
        loud = quiet.clone()
        height = bins // grid.rows
        start = int(frames * when)
        loud[:, start : start + 8, row * height : (row + 1) * height] = 20.0
        with torch.no_grad():
            backbone(quiet)
            backbone(loud)
        before, after = seen[-2:]
        found = places_of(grid, before.shape[1])
        [reached] = [found[int((after - before).norm(dim=-1).argmax())]]
        columns = 1 + max(place[1] for place in found if place is not None)
        assert reached is not None
        assert reached[0] == row
        assert abs(reached[1] - (start + 4) / frames * columns) < 1.6


def test_rows_that_patchout_leaves_out_are_said_before_a_sweep_starts():
    for method in ("conformer_adapter", "convpass"):
        node = model_node("passt")
        node.patchout_frequency = 2
        assert f"peft={method} doesn't fit model.patchout_frequency=2" in precheck(node, choice(method))
        with pytest.raises(PeftError, match=r"model\.patchout_frequency leaves out rows of frequency"):
            inject(build_ours(node), choice(method), 10)
        node.patchout_frequency, node.patchout_time = 0, 2
        assert precheck(node, choice(method)) is None


def test_a_network_that_tells_nothing_of_its_grid_is_one_message(monkeypatch):
    monkeypatch.delattr(Transformer, "token_grid")
    with pytest.raises(PeftError, match="whose backbone doesn't say how its tokens lie"):
        inject(build("transformer", 10), choice("convpass"), 10)


@pytest.mark.parametrize("model", ["transformer", "cnn"])
def test_ssf_is_its_network_with_other_weights(model):
    injection, weights = plainly(model, "ssf", targets=["attention", "mlp", "pointwise", "squeeze_excitation", "norm"])
    places = injection.config.places
    assert len(places) == (3 * 8 + 1 if model == "transformer" else 3 * 7 + 1)
    features, mask = injection.model.features(BATCH[:4])
    second = build(model, 10).backbone.eval()
    own = {name: tensor.detach() for name, tensor in (*second.named_parameters(), *second.named_buffers())}
    scales = {}
    for name in places:  # a convolution before its BatchNorm
        scale, shift = (weights[f"{name}.added_modules.{kind}"].detach().clone() for kind in ("scale", "shift"))
        scales[name] = (scale.requires_grad_(), shift.requires_grad_())
        own[f"{name}.weight"] = torch.einsum("o...,o->o...", own[f"{name}.weight"], scale)
        if f"{name}.bias" in own:
            own[f"{name}.bias"] = own[f"{name}.bias"] * scale + shift
        else:
            norm = name.replace("expand", "bn1").replace("project", "bn3")
            deviation = (own[f"{norm}.running_var"] + 1e-5).sqrt()
            own[f"{norm}.bias"] = own[f"{norm}.bias"] + own[f"{norm}.weight"] * shift / deviation
    logits = torch.func.functional_call(second, own, (features,))
    first = injection.model.backbone(features, mask)
    torch.testing.assert_close(logits, first, rtol=1e-4, atol=1e-4)
    for value in (logits, first):
        value.square().sum().backward()
    for name, mine in scales.items():
        for kind, gradient in zip(("scale", "shift"), mine, strict=True):
            theirs = weights[f"{name}.added_modules.{kind}"].grad
            torch.testing.assert_close(gradient.grad, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()) + 1e-6)


def test_ssf_merges_where_each_target_has_a_bias():
    injection = inject(build("cnn", 10), choice("ssf"), 10)
    fit(injection, steps=5)
    assert 0 <= injection.check_merge() < 1e-5
    assert finished(injection.model.backbone)[1] is None
    beside = inject(build("cnn", 10), choice("ssf", targets=["pointwise", "norm"]), 10)
    assert beside.check_merge() is None
    assert set(finished(beside.model.backbone)[1]["places"]) == set(beside.targets)


@pytest.mark.parametrize("targets", [["norm"], [r".*\.bn3"]])
def test_ssf_and_trained_batch_norm_are_one_message(targets):
    overrides = {"targets": targets, "batch_norm": "train"}
    with pytest.raises(PeftError, match=r"peft=ssf .*peft\.batch_norm=train trains the scale and shift of BatchNorm"):
        inject(build("cnn", 10), choice("ssf", **overrides), 10)
    assert (precheck(model_node("efficientat"), choice("ssf", **overrides)) is None) == (targets != ["norm"])


def test_ssf_names_a_module_that_it_cannot_follow():
    with pytest.raises(PeftError, match=r"peft=ssf can't adapt blocks\.0\.attention of model=transformer, a Attention"):
        inject(build("transformer", 10), choice("ssf", targets=[r"blocks\.\d\.attention"]), 10)


def test_conv_adapter_is_what_its_paper_writes():
    injection, weights = plainly("cnn", "conv_adapter", reduction=4, kernel=5)
    assert injection.targets == ["features.0", "features.1", "features.2"]
    second = build("cnn", 10).backbone.eval()
    mine = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items() if ".new." in name}

    def beside(place: str) -> Callable[[Tensor, Tensor], Tensor]:
        def change(x: Tensor, out: Tensor) -> Tensor:
            kernel, bias = mine[f"{place}.down.weight"], mine[f"{place}.down.bias"]
            padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
            low = torch.zeros(len(x), 4, *x.shape[2:]) + bias[:, None, None]
            for channel, up, on in product(range(16), range(5), range(5)):  # four inputs to each of four channels
                window = padded[:, channel, up : up + x.shape[2], on : on + x.shape[3]]
                tap = torch.zeros(4, 1, 1).index_put(
                    (torch.tensor(channel // 4),), kernel[channel // 4, channel % 4, up, on]
                )
                low = low + tap * window[:, None]
            high = torch.einsum("bwht,ow->boht", low.clamp(min=0), mine[f"{place}.up.weight"][:, :, 0, 0])
            return out + (high + mine[f"{place}.up.bias"][:, None, None]) * mine[f"{place}.scale"][:, None, None]

        return change

    for place in injection.targets:
        change = beside(f"{place}.new")
        second.get_submodule(place).register_forward_hook(lambda _, given, out, change=change: change(given[0], out))
    features, mask = injection.model.features(BATCH[:4])
    first, again = injection.model.backbone(features, mask), second(features)
    torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-5)
    for logits in (first, again):
        cross_entropy(logits, torch.arange(4)).backward()
    assert len(mine) == 3 * 5
    for name, weight in mine.items():
        assert weights[name].grad.abs().max() > 1e-7, name
        torch.testing.assert_close(weight.grad, weights[name].grad, rtol=1e-3, atol=1e-6, msg=name)


def test_conv_adapter_halves_its_map_where_its_block_does():
    injection = inject(build_ours(model_node("efficientat")), choice("conv_adapter"), 10)
    places = injection.config.places
    assert list(places) == [f"features.{number}" for number in range(1, 16)]  # the last block is a 1×1 convolution
    assert {name for name, place in places.items() if place["stride"] == (2, 2)} == {
        f"features.{number}" for number in (2, 4, 7, 13)
    }
    with pytest.raises(PeftError, match=r"no block within peft\.layers=last_1 has a 2-D convolution"):
        inject(build_ours(model_node("efficientat")), choice("conv_adapter", layers="last_1"), 10)


def standin_of(method: str) -> str:
    return "cnn" if method in CONVOLUTIONS_ONLY else "transformer"


@pytest.mark.slow
@pytest.mark.parametrize("method", ADDED)
def test_it_starts_as_the_network_was_and_learns(method, tmp_path):
    model = build(standin_of(method), 10)
    with torch.no_grad():
        before = model.eval()(BATCH)
    injection = inject(model, choice(method), 40)
    with torch.no_grad():
        moved = (model.eval()(BATCH) - before).abs().max()
    assert (moved <= 1e-6) == (method not in CHANGE_THE_START)
    losses = fit(injection, steps=40)
    assert losses[-1] < 0.97 * losses[0]
    folder = injection.save(tmp_path / "adapter", {"model": standin_node(model.name)}, TASK)
    plain = build(model.name, 10)
    plain.backbone = peft.PeftModel.from_pretrained(plain.backbone, str(folder))
    warm = inject(build(model.name, 10), choice(method), 10)
    warm_start(warm, tmp_path, TASK)
    with torch.no_grad():
        after = model.eval()(BATCH)
        for again in (plain, load_run_model(tmp_path), warm.model):
            assert torch.equal(again.eval()(BATCH), after)


@pytest.mark.parametrize("method", ADDED)
def test_a_finished_network_is_rebuilt_without_peft_around_it(method):
    injection = inject(build(standin_of(method), 10), choice(method), 10)
    fit(injection, steps=3)
    features, mask = injection.model.features(BATCH)
    whole, added = finished(injection.model.backbone)
    assert not [name for name, _ in whole.named_modules() if "modules_to_save" in name or "base_model" in name]
    fresh = build(standin_of(method), 10, seed=5).backbone
    if added is not None:
        insert(fresh, added)
    fresh.load_state_dict(whole.state_dict())
    with torch.no_grad():
        wanted = injection.model.eval().backbone(features, mask)
        tolerance = 0 if added else 1e-5
        torch.testing.assert_close(fresh.eval()(features, mask), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", ADDED)
def test_in_half_precision_what_it_stands_around_keeps_its_type(method):
    model = build(standin_of(method), 10)
    injection = inject(model, choice(method), 10)
    layers = [module for module in model.backbone.modules() if isinstance(module, AddedLayer)]
    types: list[tuple[torch.dtype, torch.dtype]] = []
    for layer in layers:
        own: list[torch.dtype] = []
        layer.base_layer.register_forward_hook(lambda *seen, own=own: own.append(seen[2].dtype))
        layer.register_forward_hook(lambda *seen, own=own: types.append((own[-1], seen[2].dtype)))
    features, mask = injection.model.features(BATCH)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model.eval().backbone(features, mask)
    assert len(types) == len(layers)
    assert (torch.bfloat16,) * 2 in types
    assert all(before == after for before, after in types)


def test_what_a_foreign_file_says_of_added_modules_is_one_message():
    backbone = build("transformer", 10).backbone
    for content in ({"method": "os.system", "options": {}, "places": {}}, {"method": "BottleneckConfig"}, []):
        with pytest.raises(PeftError, match="the modules that its method added can't be made"):
            insert(backbone, content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in ("ast", "htsat", "beats", "ced", "wavlm", "efficientat")
        for method in ADDED
        if method not in refused(name)
    ],
)
def test_gradient_checkpointing_gives_the_same_gradients(name, method):
    node = model_node(name)
    fresh = build_ours(node)
    features, mask = fresh.features(clips(fresh.sample_rate, 2, 0.5))
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(fresh)
        torch.manual_seed(1)
        injection = inject(model, choice(method), 10)
        with torch.no_grad():  # a way up of zeros would hide what is before it
            for name, parameter in model.named_parameters():
                if PREFIX in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        if checkpointing:
            model.backbone.base_model.model.enable_gradient_checkpointing()
        injection.train_mode()
        torch.manual_seed(2)
        cross_entropy(model.backbone(features, mask), torch.tensor([0, 1])).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert len(gradients[0]) > 4
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.any()
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "method", "own"),
    [
        (name, method, own)
        for name in (*MODELS, *FURTHER, *SPEECH)
        for method, own in (
            ("prompt", {"depth": "shallow"}),
            ("prompt", {"depth": "deep"}),
            ("prompt", {"depth": "shallow", "layers": "last_2"}),
            ("prefix", {}),
            ("prefix", {"layers": "last_2"}),
        )
        if method not in refused(name)
    ],
)
@torch.no_grad()
def test_prompts_and_prefixes_belong_to_no_clip_and_no_place(name, method, own):
    node = model_node(name)
    model, plain = build_ours(node), build_ours(node).eval()
    length = model.sample_rate
    waveform = torch.cat((clips(length, 2), torch.zeros(2, length)), dim=1)
    lengths = torch.tensor([length * 3 // 4, length])
    injection = inject(model, choice(method, length=3, **own), 10)
    learnt = [parameter for key, parameter in model.named_parameters() if PREFIX in key]
    for parameter in learnt:
        torch.nn.init.normal_(parameter)
    model.eval()
    short, both = waveform[:, :length], model(waveform[:, :length], lengths)
    assert (both - plain(short, lengths)).abs().amax(dim=1).min() > 1e-4
    torch.testing.assert_close(model(short.flip(0), lengths.flip(0)).flip(0), both, rtol=0, atol=2e-5)
    for row in range(2):
        alone = slice(row, row + 1)
        torch.testing.assert_close(model(short[alone], lengths[alone]), both[alone], rtol=0, atol=2e-5)
    silent = (plain(waveform, lengths) - plain(short, lengths)).abs().max() < 1e-5
    assert silent == (name in PADDING_SAYS_NOTHING)
    if silent:
        torch.testing.assert_close(model(waveform, lengths), both, rtol=0, atol=2e-5)
    if injection.blocks:
        network, place = model.backbone.get_base_model(), injection.blocks[0]
        state = network.until(place, *model.features(short, lengths))
        assert torch.equal(network.onward(place, state), both)
    for parameter in learnt:
        parameter.copy_(parameter.flip(0))
    torch.testing.assert_close(model(short, lengths), both, rtol=0, atol=2e-5)


def test_a_network_that_does_not_say_what_its_blocks_take_is_one_message(monkeypatch):
    monkeypatch.delattr(Transformer, "beside_tokens")
    with pytest.raises(PeftError, match="whose backbone doesn't say what its blocks take beside their tokens; give"):
        inject(build("transformer", 10), choice("prompt"), 10)
    dasheng = build_ours(model_node("dasheng"))
    monkeypatch.setattr(type(dasheng.backbone), "beside_tokens", {})
    inject(dasheng, choice("prompt"), 10)
    with pytest.raises(PeftError, match="a block takes a tensor that its backbone's beside_tokens doesn't name"):
        dasheng(clips(dasheng.sample_rate, 1), torch.tensor([dasheng.sample_rate]))


@torch.no_grad()
def test_every_shifted_window_attends_to_a_prefix():
    """A block of HTS-AT, window by window and head by head."""
    model = build_ours(model_node("htsat"))
    inject(model, choice("prefix", length=3), 10)
    block = next(module for module in model.backbone.modules() if getattr(module, "shift", 0)).eval()
    attention, added = block.attention, block.attending.added_modules["default"]
    for parameter in added.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, block.side, block.side, attention.q_proj.in_features)
    windows = split_windows(x.roll((-block.shift, -block.shift), (1, 2)), block.window)
    bias = attention.bias()
    assert len(bias) > 1
    query, key, value = (
        project(windows).chunk(attention.heads, -1)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    rows = []
    for number in range(len(windows)):
        heads = []
        for head in range(attention.heads):
            keys = torch.cat((key[head][number], added.keys.chunk(attention.heads, -1)[head]))
            values = torch.cat((value[head][number], added.values.chunk(attention.heads, -1)[head]))
            scores = attention.scale * query[head][number] @ keys.T
            scores[:, :-3] += bias[number % len(bias), head]
            heads.append(scores.softmax(-1) @ values)
        rows.append(attention.o_proj(torch.cat(heads, -1)))
    wanted = join_windows(torch.stack(rows), block.window, block.side).roll((block.shift, block.shift), (1, 2))
    torch.testing.assert_close(block.attending(x, block._attend), wanted, rtol=1e-4, atol=1e-5)


def test_a_prefix_outlives_what_the_compiler_cannot_follow():
    """BEATs' attention falls into several graphs under ``trainer.compile=true``."""
    layer = AttentionPrefix(PrefixConfig(length=2), 8)

    def attention(x):
        torch._dynamo.graph_break()
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        return functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)

    x = torch.randn(3, 5, 8)
    compiled = torch.compile(layer, backend="eager")
    torch.testing.assert_close(compiled(attention, x), layer(attention, x))


def test_attention_that_has_no_place_for_a_prefix_is_one_message(monkeypatch):
    model = build("transformer", 10)
    inject(model, choice("prefix"), 10)

    def causal(self: Attention, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(*[x.unsqueeze(1)] * 3, is_causal=True).squeeze(1)

    for forward, says in ((causal, "no place in attention that looks at"), (lambda self, x: x, "finds no attention")):
        monkeypatch.setattr(Attention, "forward", forward)
        with pytest.raises(PeftError, match=f"a prefix (has )?{says}.*; use prompt"):
            model(BATCH)


def test_what_prompts_cannot_be_is_said_before_a_sweep_starts():
    says = {
        "depth": "peft.depth=flat: must be shallow or deep",
        "length": "peft.length=0: must be a whole number from 1",
    }
    for key, value in (("depth", "flat"), ("length", 0)):
        assert says[key] in precheck(model_node("ast"), choice("prompt", **{key: value}))
    assert "has no place for further tokens; use prefix" in precheck(model_node("htsat"), choice("prompt"))
    assert "beside a transformer's tokens, and this network has no group attention" in precheck(
        model_node("efficientat"), choice("prompt")
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"where": "mlp"}, "peft.where=mlp: must be ffn, attention or both"),
        ({"form": "serial"}, "peft.form=serial: must be sequential or parallel"),
        ({"activation": "tanh"}, "peft.activation=tanh: must be gelu or relu"),
        ({"width": 0}, "peft.width=0: must be a whole number from 1 to 65536"),
        ({"width": 10**9}, "peft.width=1000000000: must be a whole number from 1 to"),
        ({"scale": float("inf")}, "peft.scale=inf: must be a number above 0, up to 65536, or learnt"),
        ({"scale": 10**400}, "must be a number above 0, up to 65536, or learnt"),
        ({"scale": "big"}, "peft.scale=big: must be a number above 0, up to 65536, or learnt"),
        ({"dropout": 1.0}, "peft.dropout=1.0: must be from 0 on and below 1"),
        ({"targets": ["mlp"]}, "peft=bottleneck (sousa_bench.peft.BottleneckConfig) has no key 'targets'"),
        ({"layers": "last_99"}, "peft.layers=last_99: model=ast has 4 blocks"),
    ],
)
def test_what_a_bottleneck_cannot_be_is_said_before_a_sweep_starts(overrides, says):
    assert says in precheck(model_node("ast"), choice("bottleneck", **overrides))


def test_what_trains_batch_norm_is_said_before_a_sweep_starts():
    said = precheck(model_node("efficientat"), choice("conv_adapter", batch_norm="train"))
    assert "it stands around whole blocks, whose BatchNorm stays as it is" in said
    assert "leave norm out of peft.targets" in precheck(model_node("efficientat"), choice("ssf", batch_norm="train"))
    assert precheck(model_node("ast"), choice("ssf", batch_norm="train")) is None
    assert (
        precheck(model_node("efficientat"), choice("ssf", batch_norm="train", targets=["squeeze_excitation"])) is None
    )


@pytest.mark.parametrize("kernel", [0, 4, 2.5])
def test_a_kernel_that_has_no_middle_is_said_before_a_sweep_starts(kernel):
    says = f"peft.kernel={kernel}: must be an odd number from 1 to 65536"
    assert precheck(model_node("ast"), choice("conformer_adapter", kernel=kernel)) == says


def test_a_network_whose_sublayers_have_no_module_is_one_message():
    model = build("transformer", 10)
    model.targets.groups["mlp"] = [r"blocks\.\d+\.(mlp\.fc1|attention\.out)"]
    with pytest.raises(PeftError, match=r"group mlp in blocks\.0 are the only children of no one module; put them"):
        inject(model, choice("bottleneck"), 10)
