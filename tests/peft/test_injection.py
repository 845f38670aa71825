"""What an injection promises: exact modules, frozen BatchNorm, checkpoints that belong to their base weights."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from helpers import BATCH, choice, fit, standin_node
from safetensors.torch import load_file, save_file
from standins import build
from torch import nn

from sousa_bench.errors import PeftError
from sousa_bench.peft import inject, load, load_run_model
from sousa_bench.peft.injection import MERGE_TOLERANCE
from sousa_bench.peft.targets import batch_norms
from sousa_bench.task import Task

LABELS = [str(index) for index in range(10)]
LORA_ON_ATTENTION = {"targets": ["attention"], "r": 4}


def save(injection, folder, seed=0):
    return injection.save(folder / "adapter", {"model": standin_node(injection.model.name, seed)}, Task(tuple(LABELS)))


def trainable_names(injection):
    return [name for name, parameter in injection.model.backbone.named_parameters() if parameter.requires_grad]


def statistics(backbone):
    return {n: b.clone() for n, b in backbone.named_buffers() if "running" in n or "num_batches" in n}


def test_counts_by_part():
    model = build("transformer", 10)
    before = sum(p.numel() for p in model.backbone.parameters())
    counts = inject(model, choice("lora", **LORA_ON_ATTENTION), 10).parameters
    head, adapter = 32 * 10 + 10, 3 * 4 * 4 * (32 + 32)
    assert counts == {
        "backbone": before - head,
        "adapter": adapter,
        "head": head,
        "total": before + adapter,
        "trainable": head + adapter,
    }


def test_counts_of_the_reference_points():
    whole = sum(p.numel() for p in build("cnn", 10).backbone.parameters())
    full = inject(build("cnn", 10), choice("full"), 10).parameters
    probe = inject(build("cnn", 10), choice("head"), 10).parameters
    assert full["trainable"] == full["total"] == probe["total"] == whole
    assert probe["trainable"] == probe["head"] == 33 * 10
    assert full["adapter"] == probe["adapter"] == 0


def test_a_module_whose_name_ends_like_the_head_is_an_error():
    model = build("transformer", 10)
    model.backbone.second_head = nn.Linear(3, 3)  # PEFT would take it for the head: it compares the ends of names
    with pytest.raises(PeftError, match="unasked: \\['second_head'\\]"):
        inject(model, choice("lora"), 10)


def test_bias_option_of_the_class_trains_the_biases():
    names = trainable_names(inject(build("transformer", 10), choice("lora", bias="all"), 10))
    assert any(name.endswith("stem.bias") for name in names)


def test_only_adapters_and_head_train():
    names = trainable_names(inject(build("cnn", 10), choice("lora"), 10))
    assert names
    assert all("lora_" in name or "classifier.3.modules_to_save" in name for name in names)


@pytest.mark.parametrize("method", ["lora", "ln_tuning", "bitfit", "head"])
def test_frozen_batch_norm_keeps_its_statistics(method):
    injection = inject(build("cnn", 10), choice(method), 10)
    before = statistics(injection.model.backbone)
    fit(injection, steps=3)
    after = statistics(injection.model.backbone)
    assert before
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["lora", "bitfit", "ln_tuning", "full"])
def test_batch_norm_in_training_learns_and_is_saved(method, tmp_path):
    injection = inject(build("cnn", 10), choice(method, batch_norm="train"), 10)
    before = statistics(injection.model.backbone)
    fit(injection, steps=3)
    after = statistics(injection.model.backbone)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) >= 3 * len(batch_norms(build("cnn", 10).backbone))
    save(injection, tmp_path)
    with torch.no_grad():
        assert torch.equal(injection.model.eval()(BATCH), load_run_model(tmp_path)(BATCH))


def test_linear_probe_and_frozen_blocks_are_fixed_functions():
    probe = inject(build("transformer", 10), choice("head"), 10)
    probe.train_mode()
    assert not probe.model.backbone.blocks.training
    assert probe.model.backbone.head.training
    upper = inject(build("transformer", 10), choice("lora", layers="last_1"), 10)
    upper.train_mode()
    blocks = upper.model.backbone.base_model.model.blocks
    assert [block.dropout.training for block in blocks] == [False, False, True]
    everywhere = inject(build("transformer", 10), choice("lora"), 10)
    everywhere.train_mode()
    assert all(block.dropout.training for block in everywhere.model.backbone.base_model.model.blocks)


@pytest.mark.parametrize("method", ["lora", "adalora", "full"])
def test_best_state_comes_back(method):
    injection = inject(build("cnn", 10), choice(method), 20)
    fit(injection, steps=8)
    state = injection.trainable_state()
    with torch.no_grad():
        good = injection.model.eval()(BATCH)
    for name, parameter in injection.model.backbone.named_parameters():
        if parameter.requires_grad and parameter.numel():
            torch.nn.init.normal_(parameter) if parameter.ndim else None
            assert not torch.equal(parameter.cpu(), state[name])
    injection.load_trainable_state(state)
    with torch.no_grad():
        assert torch.equal(injection.model(BATCH), good)


def test_state_of_another_method_is_refused():
    state = inject(build("cnn", 10), choice("lora"), 10).trainable_state()
    with pytest.raises(PeftError, match="doesn't fit peft=ia3"):
        inject(build("cnn", 10), choice("ia3"), 10).load_trainable_state(state)


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "ia3", "vera", "oft"])
def test_merged_equals_unmerged_and_holds_no_peft_module(method):
    injection = inject(build("transformer", 10), choice(method), 10)
    fit(injection, steps=5)
    features, mask = injection.model.features(BATCH)
    injection.train_mode()
    error = injection.check_merge(features, mask)
    assert injection.model.backbone.training  # the check leaves the mode as it was
    assert 0 <= error < 2e-5
    assert injection.facts()["merged_max_error"] == error
    assert 0 <= injection.check_merge() < 2e-5
    assert not any("peft" in type(module).__module__ for module in injection.merged().modules())


@pytest.mark.parametrize("broken", [1.05, float("nan")])
def test_a_merge_that_gives_other_logits_is_a_warning(monkeypatch, broken):
    injection = inject(build("transformer", 10), choice("lora"), 10)
    fit(injection, steps=5)
    injection.check_merge()
    assert injection.merged_relative_error < MERGE_TOLERANCE
    assert injection.final_warnings() == []
    right = injection.merged

    def wrong():
        backbone = right()
        with torch.no_grad():
            backbone.blocks[0].attention.value.weight.mul_(broken)
        return backbone

    monkeypatch.setattr(injection, "merged", wrong)
    injection.check_merge()
    [warning] = injection.final_warnings()
    assert "peft=lora on model=transformer: merged into the weights, the network gives other logits" in warning
    assert not injection.facts()["merged_relative_error"] <= MERGE_TOLERANCE


def test_the_saved_adapter_is_pefts_own(tmp_path):
    injection = inject(build("cnn", 10), choice("lora"), 10)
    fit(injection, steps=5)
    folder = save(injection, tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "sousa.json",
    ]
    plain = build("cnn", 10)
    plain.backbone = peft.PeftModel.from_pretrained(plain.backbone, str(folder))
    with torch.no_grad():
        assert torch.equal(plain.eval()(BATCH), injection.model.eval()(BATCH))


def test_saving_again_replaces_the_folder(tmp_path):
    injection = inject(build("cnn", 10), choice("head"), 10)
    save(injection, tmp_path)
    (tmp_path / "adapter" / "stale").touch()
    save(injection, tmp_path)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["adapter", "model.safetensors", "sousa.json"]


@pytest.mark.parametrize("method", ["lora", "head"])
def test_other_base_weights_are_refused(method, tmp_path):
    save(inject(build("cnn", 10, seed=1), choice(method), 10), tmp_path, seed=1)
    with pytest.raises(PeftError, match=r"trained on random weights from seed 1 .* holds random weights from seed 2"):
        load(build("cnn", 10, seed=2), tmp_path)
    with pytest.raises(PeftError, match="load it onto the weights that it was trained on"):
        load_run_model(tmp_path, seed=3)


def test_a_folder_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(PeftError, match="no checkpoint here"):
        load_run_model(tmp_path)


@pytest.mark.parametrize("method", ["lora", "head"])
def test_a_torn_file_is_one_message(method, tmp_path):
    folder = save(inject(build("cnn", 10), choice(method), 10), tmp_path)
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(PeftError, match="no readable safetensors file"):
        load_run_model(tmp_path)


@pytest.mark.parametrize("method", ["lora", "head"])
def test_missing_or_foreign_tensors_are_refused(method, tmp_path):
    folder = save(inject(build("cnn", 10), choice(method), 10), tmp_path)
    file = next(folder.glob("*.safetensors"))
    tensors = load_file(file)
    tensors["foreign"] = tensors.pop(next(iter(tensors)))
    save_file(tensors, file)
    with pytest.raises(PeftError, match="fit model=cnn"):
        load_run_model(tmp_path)


@pytest.mark.parametrize("method", ["full", "head", "bitfit"])
def test_a_checkpoint_without_its_head_is_refused(method, tmp_path):
    folder = save(inject(build("cnn", 10), choice(method), 10), tmp_path)
    file = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if name != "classifier.3.bias"}, file)
    with pytest.raises(
        PeftError, match=r"doesn't fit model=cnn \(tiny\): classifier\.3\.bias is missing or unexpected"
    ):
        load_run_model(tmp_path)


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path):
    folder = save(inject(build("cnn", 10), choice("head"), 10), tmp_path)
    file = folder / "model.safetensors"
    save_file({name: tensor[:1].clone() for name, tensor in load_file(file).items()}, file)
    with pytest.raises(PeftError, match=r"classifier\.3\.\w+ has another shape"):
        load_run_model(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    folder = save(inject(build("cnn", 10), choice("head"), 10), tmp_path)
    description = json.loads((folder / "sousa.json").read_text())
    assert description["labels"] == LABELS
    (folder / "sousa.json").write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(PeftError, match="newer sousa_bench"):
        load_run_model(tmp_path)


@pytest.mark.parametrize("method", ["ia3", "loha", "lokr"])
def test_depthwise_convolutions_where_the_method_allows(method):
    injection = inject(build("cnn", 10), choice(method, targets=["depthwise"]), 20)
    assert injection.targets == [f"features.{index}.depthwise" for index in range(3)]
    losses = fit(injection, steps=20)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "oft", "hra", "hira"])
def test_depthwise_convolutions_elsewhere_are_one_message(method):
    with pytest.raises(PeftError, match=f"peft={method} can't adapt .*group"):
        inject(build("cnn", 10), choice(method, targets=["depthwise"]), 20)
