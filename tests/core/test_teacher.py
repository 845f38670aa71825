"""A student learns a teacher's answers: to the very clips that it hears, and however the run goes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import open_dict
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torchaudio.functional import resample

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config import distillation
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.run_config import RunConfig
from sousa_bench.data.datamodule import Batch
from sousa_bench.errors import ConfigError
from sousa_bench.models.base import AudioModel
from sousa_bench.peft import load_run_model
from sousa_bench.pretrain.__main__ import check as check_pretraining
from sousa_bench.sweep.plan import Candidate
from sousa_bench.training.augmented_clips import AugmentedClips
from sousa_bench.training.kept_states import KeptStates
from sousa_bench.training.run import run
from sousa_bench.training.teacher import Teacher
from tests.cases import check_each
from tests.core.test_run import interrupt, numbers
from tests.trained import trained

STUDENT = ("model=efficientat", "peft=lora", "trainer.max_epochs=1")  # hears 32 kHz, its teacher 16 kHz
SLOW_RATE, FAST_RATE = 16_000, 32_000


@pytest.fixture(scope="module")
def teacher() -> Path:
    """The folder of AST with LoRA, trained for a moment on the 40 rudiments."""
    return trained().folder


@pytest.fixture
def taught(config, teacher):
    def build(*words):
        return config(*STUDENT, f"teacher.run={teacher}", *words)

    return build


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_is_the_divergence_of_softened_answers(several):
    student, answers = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)) * 3
    student.requires_grad_()
    found = Teacher.losses(_Softening(3.0), student, answers, several)
    if several:
        expected = kl_divergence(Bernoulli(logits=answers / 3), Bernoulli(logits=student / 3)).mean(dim=1)
    else:
        expected = kl_divergence(Categorical(logits=answers / 3), Categorical(logits=student / 3))
    torch.testing.assert_close(found, 9 * expected)
    assert float(Teacher.losses(_Softening(3.0), answers, answers, several).abs().max()) < 1e-5
    found.sum().backward()
    held = (answers / 3).sigmoid() if several else (answers / 3).softmax(dim=1)
    own = (student / 3).sigmoid() if several else (student / 3).softmax(dim=1)
    torch.testing.assert_close(student.grad, 3 * (own - held) / (7 if several else 1))


class _Softening:
    def __init__(self, temperature):
        self.temperature = temperature


@pytest.mark.slow
def test_labels_and_teacher_share_the_loss(taught, config):
    losses = {}
    for weight in (None, 1.0, 0.25):
        cfg = config(*STUDENT) if weight is None else taught(f"teacher.weight={weight}")
        setup = Setup.of(cfg)
        setup.module.injection.model.eval()
        batch = setup.batches(0)[0]
        inputs = setup.module.training_inputs(batch)
        losses[weight] = float(setup.module._backward(*inputs, len(batch.members)))
        assert all(p.grad is None or p.requires_grad for p in setup.module.parameters())
    assert losses[0.25] == pytest.approx(0.75 * losses[None] + 0.25 * losses[1.0], rel=1e-5)
    assert losses[None] != pytest.approx(losses[1.0], rel=0.05)


def batch_and_inputs(setup):
    batch = setup.batches(0)[0]
    return batch, setup.module.inputs


@pytest.mark.slow
def test_the_teacher_answers_what_it_would_say_of_the_student_s_clips(taught, teacher):
    """Without augmentation those of the run's own model; beside any neighbours, in passes of any size, on any rank."""
    setup = Setup.of(taught("augmentation=off"))
    batch, inputs = batch_and_inputs(setup)
    found = setup.module.teacher.logits(batch, 42, inputs, most=2)
    model, clips = load_run_model(teacher), setup.module.teacher._clips
    for row, clip in zip(found, batch.index, strict=True):
        waveform = clips.waveform([clip], int(clips.padded[clip])).float() / 32768
        with torch.no_grad():
            alone = model(waveform, torch.from_numpy(clips.lengths[[clip]]))[0]
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)
    augmented = Setup.of(taught("augmentation=on"))
    batch, inputs = batch_and_inputs(augmented)
    whole = augmented.module.teacher.logits(batch, 42, inputs, most=len(batch.index))
    assert not torch.allclose(whole, found, atol=1e-2)
    part = Batch("train", batch.index[1::2], batch.members, batch.epoch, batch.step)
    half = augmented.module.teacher.logits(part, 42, inputs, most=1)
    torch.testing.assert_close(half, whole[1::2], rtol=1e-4, atol=1e-4)
    assert not half.requires_grad


def test_at_another_sample_rate_the_same_is_heard_noise_and_all(config):
    words = ("augmentation.mixup.probability=1", "augmentation.noise.probability=1", "augmentation.noise.max_snr_db=12")
    setups = {rate: Setup.of(config(f"model={name}", "peft=head", *words)) for rate, name in (
        (SLOW_RATE, "ast"), (FAST_RATE, "efficientat"))}  # fmt: skip
    batch = setups[FAST_RATE].batches(0)[0]
    clips = {rate: setup.module.clips["train"] for rate, setup in setups.items()}
    augmentation = setups[FAST_RATE].module.augmentation

    def heard(rate, noise_of=None):
        return AugmentedClips(clips[rate], augmentation, batch, 42, torch.device("cpu"), noise_of)

    rows = np.array([0])
    fast = heard(FAST_RATE)
    samples = int(fast.padded[0])
    expected = resample(fast.waveform(rows, samples), FAST_RATE, SLOW_RATE)

    def apart(waveform):
        return float((waveform - expected).norm() / expected.norm())

    same = heard(SLOW_RATE, noise_of=fast).waveform(rows, samples // 2)
    assert same.shape == expected.shape
    assert apart(same) < 0.05
    assert apart(heard(SLOW_RATE).waveform(rows, samples // 2)) > 0.2  # noise drawn anew


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["on", "off"])
def test_an_interruption_changes_no_number(taught, tmp_path, monkeypatch, augmentation):
    cfg = taught(f"augmentation={augmentation}", "trainer.max_epochs=2", f"data.cache_dir={tmp_path / 'cache'}")
    whole = numbers(run(cfg, tmp_path / "whole"), tmp_path / "whole")
    interrupt(monkeypatch, cfg, tmp_path / "parts", 2)
    assert numbers(run(cfg, tmp_path / "parts"), tmp_path / "parts") == whole
    alone = taught(f"augmentation={augmentation}", "trainer.max_epochs=2", "teacher.run=null")
    assert numbers(run(alone, tmp_path / "alone"), tmp_path / "alone") != whole


@pytest.mark.slow
def test_answers_to_unchanging_clips_are_computed_once_for_all_runs(taught, tmp_path, monkeypatch):
    passes, features = [0], AudioModel.features

    def counting(self, waveform, lengths=None):
        passes[0] += len(waveform) * (self.name == "ast")
        return features(self, waveform, lengths)

    monkeypatch.setattr(AudioModel, "features", counting)
    words = ("augmentation=off", "trainer.max_epochs=2", f"data.cache_dir={tmp_path / 'cache'}")
    clips = run(taught(*words), tmp_path / "first")["data"]["counts"]["train"]
    once = passes[0]
    assert clips <= once <= clips + 2  # two are noise that tells what is kept
    run(taught(*words, "seed=2"), tmp_path / "second")
    assert passes[0] <= once + 2
    kept = numbers(run(taught(*words), tmp_path / "third"), tmp_path / "third")
    monkeypatch.setattr(KeptStates, "_room", lambda *_: False)
    shutil.rmtree(tmp_path / "cache")
    assert numbers(run(taught(*words), tmp_path / "fourth"), tmp_path / "fourth") == kept


@pytest.mark.slow
def test_bfloat16_and_micro_batches(taught, tmp_path):
    words = ("augmentation=on", "peft.lora_dropout=0")
    ways = {"large": (), "small": ("trainer.micro_batch_size=1",), "half": ("trainer.precision=bf16-mixed",)}
    loss = {name: run(taught(*words, *way), tmp_path / name)["history"][0]["train_loss"] for name, way in ways.items()}
    assert loss["small"] == pytest.approx(loss["large"], rel=1e-5)
    assert loss["half"] == pytest.approx(loss["large"], rel=0.02)
    assert loss["half"] != pytest.approx(loss["large"], rel=1e-5)


@pytest.fixture
def changed(teacher, tmp_path):
    """A copy of the teacher in which some text of a file is another."""

    def make(file=None, old="", new=""):
        folder = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(teacher, folder)
        if file is not None:
            text = (folder / file).read_text()
            assert old in text
            (folder / file).write_text(text.replace(old, new))
        return folder

    return make


@pytest.mark.slow
def test_what_can_not_teach_is_refused_before_a_run(taught, config, changed, tmp_path):
    distillation.check(taught())
    distillation.check(config("teacher.weight=0.5"))

    def refused(words, says):
        with pytest.raises(ConfigError, match=says):
            distillation.check(taught(*words))

    gone = changed()
    next((gone / "adapter").glob("*.safetensors")).unlink()
    status = changed("result.json", '"status": "completed"', '"status": "failed"')
    several = changed("adapter/sousa.json", '"several": false', '"several": true')
    others = changed("adapter/sousa.json", '"flam"', '"flum"')
    unreadable = changed("adapter/sousa.json", '"format": 1,', '"format": 1')
    bases = changed("adapter/sousa.json", '"weights": "random"', '"weights": "embedded"')
    fewer = changed()
    description = fewer / "adapter" / "sousa.json"
    description.write_text(re.sub(r'\n *"flam"(: "\w+")?,', "", description.read_text()))
    cases = (
        (["teacher.weight=0"], "teacher.weight=0 can't be"),
        (["teacher.weight=1.1"], "teacher.weight=1.1 can't be"),
        (["teacher.temperature=0"], "teacher.temperature=0 can't be"),
        (["+teacher.wait=1"], "teacher.wait: nothing reads it"),
        (["peft=probe"], "peft=probe takes no steps"),
        ([f"teacher.run={tmp_path}"], "no trained weights here"),
        ([f"teacher.run={gone}"], "the weights are gone"),
        ([f"teacher.run={status}"], "this run is failed, not completed"),
        ([f"teacher.run={several}"], "trained on any number of labels a clip, this run's data have one label"),
        ([f"teacher.run={others}"], "knows other rudiments.*flum"),
        ([f"teacher.run={fewer}"], "it knows 39 rudiments, this run's data have 40"),
        ([f"teacher.run={unreadable}"], "sousa.json can't be read"),
        ([f"teacher.run={bases}"], "trained on other base weights than .*ast.safetensors holds now"),
    )
    check_each(cases, refused)
    with pytest.raises(ConfigError, match="teacher=x: give the folder of a completed run"):
        distillation.check(config("teacher=x"))
    with pytest.raises(Exception, match=r"teacher\.run=x: leave it out"):
        check_pretraining(tmp_path / "out", ["teacher.run=x"])


@pytest.mark.slow
def test_planning_a_student_writes_no_clips(taught, tmp_path):
    Candidate.of(RunConfig(taught(f"data.cache_dir={tmp_path / 'cache'}")), [])
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_teacher_counts_by_its_weights_and_none_changes_nothing(config, taught, changed):
    plain = config(*STUDENT)
    alone = fingerprint(plain)
    assert fingerprint(config(*STUDENT, "teacher.weight=0.1", "teacher.temperature=9")) == alone
    with open_dict(plain):
        del plain["teacher"]  # as before there were teachers
    assert fingerprint(plain) == alone
    copied = changed()
    with_teacher = fingerprint(taught())
    assert (
        with_teacher
        == fingerprint(taught(f"teacher.run={copied}"))
        == fingerprint(taught(f"teacher.run={copied / 'adapter'}", "teacher.temperature=2"))
    )
    file = next((copied / "adapter").glob("*.safetensors"))
    file.write_bytes(file.read_bytes() + b" ")
    found = [
        fingerprint(taught(word)) for word in ("teacher.weight=0.1", "teacher.temperature=9", f"teacher.run={copied}")
    ]
    assert len({alone, with_teacher, *found}) == 5
