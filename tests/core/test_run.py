"""One run: what it reports, that it repeats itself, and that an interruption changes nothing."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate

from sousa_bench.errors import ConfigError, Interrupted
from sousa_bench.models.published import sizes
from sousa_bench.peft import load_run_model
from sousa_bench.results import result
from sousa_bench.results.result import Recorder
from sousa_bench.sweep.verdict import Verdict
from sousa_bench.system.gpus import SHARED
from sousa_bench.training import hardware
from sousa_bench.training.classifier import Classifier, NonFiniteLossError
from sousa_bench.training.inputs import Inputs
from sousa_bench.training.run import run


def numbers(blocks, folder):
    """All that must be equal bit for bit between two runs of one config."""
    history = [{k: v for k, v in entry.items() if "seconds" not in k} for entry in blocks["history"]]
    frame = pd.read_parquet(folder / "predictions.parquet")
    return blocks["metrics"], history, np.stack(frame["logits"].to_list()).tobytes(), list(frame["sample_id"])


def stop_after(monkeypatch, steps, act):
    """Call ``act`` once, right after the given number of training steps."""
    original, done = Classifier.training_step, []

    def step(self, batch, batch_idx):
        original(self, batch, batch_idx)
        done.append(1)
        if len(done) == steps:
            act()

    monkeypatch.setattr(Classifier, "training_step", step)


def interrupt(monkeypatch, cfg, folder, steps):
    """Do a run that is asked to stop after the given number of training steps, and does."""
    with monkeypatch.context() as patch:
        stop_after(patch, steps, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run(cfg, folder)


@pytest.mark.slow
def test_a_run_reports_every_fixed_field(config, folder):
    cfg = config("model=efficientat", "peft=lora")
    blocks = run(cfg, folder)
    fixed = {
        "config": dict.fromkeys(result.CONFIG_KEYS, 1),
        "experiment_id": "x",
        "status": "completed",
        "timestamp": "t",
        "git_commit": "c",
    }
    assert result.missing_fields({**blocks, **fixed}) == []
    assert len(blocks["history"]) == 3
    assert blocks["parameters"]["adapter"] > 0
    assert (blocks["weights"]["kind"], blocks["weights"]["pretraining"]) == ("random", "none")
    size = sizes()["efficientat", "tiny"]
    network = {"variant": "tiny", "parameters": size.parameters, "multiply_adds": size.multiply_adds, "seconds": 5.0}
    assert blocks["network"] == network
    frame = pd.read_parquet(folder / "predictions.parquet")
    assert len(frame) == blocks["data"]["counts"]["test"]
    accuracy = (frame["predicted"] == frame["label"]).mean()
    assert blocks["metrics"]["test_acc"] == pytest.approx(accuracy)
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert (folder / "checkpoints" / "last.pt").exists()  # until the record stands


def test_a_model_that_hears_less_than_a_clip_says_so(config, folder):
    blocks = run(config("model=whisper", "peft=head", "model.variants.tiny.tokens=25", "trainer.max_epochs=1"), folder)
    assert "model=whisper hears 0.5 s of a clip; of longer ones the rest is left out" in blocks["warnings"]
    assert blocks["network"]["multiply_adds"] != sizes()["whisper", "tiny"].multiply_adds  # those of its own numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "peft", "augmentation", "tested", "precision"),
    [
        ("ast", "adalora", "on", "best", "32-true"),
        ("efficientat", "full", "off", "last", "32-true"),
        ("beats", "lora", "on", "last", "32-true"),
        ("beats", "lora", "on", "last", "bf16-mixed"),
        ("ast", "head", "off", "best", "32-true"),
        ("ast", "convpass", "on", "last", "32-true"),
    ],
)
def test_interruptions_change_no_number(config, tmp_path, monkeypatch, model, peft, augmentation, tested, precision):
    words = (f"model={model}", f"peft={peft}", f"augmentation={augmentation}", f"trainer.tested_epoch={tested}")
    cfg = config(*words, f"trainer.precision={precision}", "trainer.train_batches=4")
    whole = numbers(run(cfg, tmp_path / "whole"), tmp_path / "whole")

    interrupt(monkeypatch, cfg, tmp_path / "parts", 2)  # in the middle of the first epoch
    with monkeypatch.context() as patch:  # dies in the second epoch, without a word
        stop_after(patch, 4, lambda: (_ for _ in ()).throw(RuntimeError("gone")))
        with pytest.raises(RuntimeError, match="gone"):
            run(cfg, tmp_path / "parts")
    state = torch.load(tmp_path / "parts" / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 0)
    resumed = run(cfg, tmp_path / "parts")
    assert numbers(resumed, tmp_path / "parts") == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_inside_a_validation_it_keeps_the_epoch(config, tmp_path, monkeypatch, number):
    cfg = config("model=efficientat", "peft=lora", "augmentation=off", "trainer.eval_batch_size=2")
    whole = numbers(run(cfg, tmp_path / "whole"), tmp_path / "whole")
    original, seen = Classifier.validation_step, []

    def step(self, batch, batch_idx):
        original(self, batch, batch_idx)
        seen.append(1)
        if len(seen) == 1:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "validation_step", step)
        with pytest.raises(Interrupted, match="the checkpoint is written"):
            run(cfg, tmp_path / "parts")
    assert len(seen) > 1
    state = torch.load(tmp_path / "parts" / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], state["step"], len(state["history"])) == (1, 0, 1)
    assert numbers(run(cfg, tmp_path / "parts"), tmp_path / "parts") == whole


@pytest.mark.slow
def test_seeds_repeat_and_differ(config, tmp_path):
    first, second, other = (
        numbers(run(config("model=efficientat", f"seed={seed}", "trainer.max_epochs=1"), path), path)
        for seed, path in ((1, tmp_path / "a"), (1, tmp_path / "b"), (2, tmp_path / "c"))
    )
    assert first == second
    assert first[0] != other[0]


@pytest.mark.slow
def test_the_tested_weights_are_those_of_the_epoch_that_is_asked_for(config, tmp_path, monkeypatch):
    """With the first two of three epochs made equal in accuracy, the second is better by its loss."""
    made = {1: (0.9, 3.0), 2: (0.9, 2.0), 3: (0.5, 1.0)}
    seen, tested = {}, {}
    close, close_test = Classifier.on_validation_epoch_end, Classifier.on_test_epoch_end

    def end(self):
        close(self)
        entry = self.history[-1]
        entry["val_acc"], entry["val_loss"] = made[entry["epoch"]]
        weights = {key: value.clone() for key, value in self.injection.trainable_state().items()}
        seen[entry["epoch"]] = (weights, self.outputs["val"][1])

    def at_test(self):
        close_test(self)
        tested.update(self.injection.trainable_state())
        labels = self.clips["val"].labels[self.outputs["val"][0]]
        tested["validation"] = (self.outputs["val"][1], labels)

    monkeypatch.setattr(Classifier, "on_validation_epoch_end", end)
    monkeypatch.setattr(Classifier, "on_test_epoch_end", at_test)
    for rule, epoch in (("best", 2), ("last", 3)):
        tested.clear()
        blocks = run(config("model=efficientat", f"trainer.tested_epoch={rule}"), tmp_path / rule)
        metrics = blocks["metrics"]
        assert (metrics["tested_epoch"], metrics["best_epoch"], metrics["last_epoch"]) == (epoch, 2, 3), rule
        assert (metrics["val_acc"], metrics["val_loss"]) == made[epoch], rule
        assert (metrics["best_val_acc"], metrics["best_val_loss"]) == made[2], rule
        assert (metrics["final_val_acc"], metrics["final_val_loss"]) == made[3], rule
        logits, labels = tested.pop("validation")
        assert torch.equal(logits, seen[epoch][1]), rule
        for other, (weights, _) in seen.items():
            same = all(torch.equal(tested[key], weights[key]) for key in tested)
            assert same == (other == epoch), (rule, other)
        grid = np.geomspace(0.01, 100, 2000)
        losses = [torch.nn.functional.cross_entropy(logits.double() / value, labels).item() for value in grid]
        assert metrics["temperature"] == pytest.approx(grid[np.argmin(losses)], rel=0.01), rule
        frame = pd.read_parquet(tmp_path / rule / "predictions.parquet")
        for key, temperature in (("test_ece", 1.0), ("test_ece_calibrated", metrics["temperature"])):
            assert metrics[key] == pytest.approx(calibration_error(frame, temperature), abs=1e-5), (rule, key)


def calibration_error(frame, temperature):
    """Over 15 bins of equal width, clip by clip."""
    logits = np.stack(frame["logits"].to_list()).astype(float) / temperature
    confidence = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).max(axis=1)
    right = logits.argmax(axis=1) == frame["label"].to_numpy()
    bins = np.ceil(confidence * 15).astype(int)
    return sum(abs((right[bins == b] - confidence[bins == b]).sum()) for b in set(bins)) / len(frame)


@pytest.mark.slow
def test_micro_batches_change_nothing_but_memory(config, tmp_path):
    """Gradient accumulation inside the step: the same losses up to rounding."""
    histories = [
        run(
            config("model=ast", "augmentation=off", f"trainer.micro_batch_size={size}", "peft.lora_dropout=0"),
            tmp_path / size,
        )["history"]
        for size in ("1", "4")
    ]
    for one, four in zip(*histories, strict=True):
        assert one["train_loss"] == pytest.approx(four["train_loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(four["val_loss"], rel=1e-4)


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_micro_batch(config, folder, monkeypatch):
    original = Classifier._backward

    def hungry(self, *step):
        if self.micro_batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, *step)

    monkeypatch.setattr(Classifier, "_backward", hungry)
    blocks = run(config("model=efficientat", "trainer.max_epochs=1"), folder)
    assert blocks["efficiency"]["micro_batch_size"] == 1
    assert sum("memory ran out" in message for message in blocks["warnings"]) == 2


def test_memory_that_runs_out_beside_others_ends_the_attempt(config, folder, monkeypatch):
    """The sweep lets it go on beside fewer; half the micro-batch would draw other dropout."""

    def hungry(self, *step):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Classifier, "_backward", hungry)
    monkeypatch.setenv(SHARED, "1")
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run(config("model=efficientat", "trainer.max_epochs=1"), folder)
    verdict = Verdict.of_error(caught.value, "fit")
    assert (verdict.status, verdict.failure["cause"], verdict.failure["log"]) == ("interrupted", "oom", None)
    monkeypatch.setenv(SHARED, "0")
    assert Verdict.of_error(caught.value, "fit").status == "failed"


@pytest.mark.slow
@pytest.mark.parametrize(("peft", "times"), [("lora", 2), ("probe", 1)])
def test_a_run_on_a_gpu_tells_what_memory_it_takes(config, folder, monkeypatch, peft, times):
    """At each epoch's end, or where there is none after the fit."""
    told = []
    monkeypatch.setattr(hardware, "gpu_memory", lambda accelerator: {"gpu_memory": len(told)})
    listener = Recorder(folder, listener=lambda recorder: told.append(recorder.progress.get("gpu_memory")))
    run(config("model=efficientat", f"peft={peft}", "augmentation=off", "trainer.max_epochs=2"), folder, listener)
    assert len(set(told) - {None}) == times


def test_what_a_gpu_says_of_its_memory(monkeypatch):
    assert hardware.gpu_memory("cpu") == {}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30, 80))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 5)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"uuid-{device}"))
    told = {"need": 5 + hardware.CONTEXT_BYTES, "free": 30, "total": 80, "uuid": "GPU-uuid-3"}
    assert hardware.gpu_memory("gpu") == {"gpu_memory": told}


def test_early_stopping(config, folder, monkeypatch):
    original = Classifier.on_validation_epoch_end

    def worse(self):
        original(self)
        self.history[-1]["val_acc"] = 1 / self.history[-1]["epoch"]

    monkeypatch.setattr(Classifier, "on_validation_epoch_end", worse)
    words = ("trainer.max_epochs=9", "trainer.early_stopping=2", "trainer.tested_epoch=best")
    cfg = config("model=efficientat", *words, "trainer.train_batches=1")
    blocks = run(cfg, folder)
    assert [entry["epoch"] for entry in blocks["history"]] == [1, 2, 3]
    assert blocks["metrics"]["best_epoch"] == 1


def test_a_diverged_loss_fails_the_run(config, folder):
    with pytest.raises(NonFiniteLossError, match="lower the learning rate"):
        run(
            config("model=efficientat", "peft=full", "trainer.learning_rate=1e30", "trainer.gradient_clip=null"), folder
        )


def test_impossible_settings_are_named(config, folder):
    with pytest.raises(ConfigError, match=r"trainer\.batch_size=0"):
        run(config("trainer.batch_size=0"), folder)


def test_the_saved_adapter_gives_the_tested_logits(config, folder):
    """What lies on disk is the model that was tested: best weights, AdaLoRA's ranks cut to what is left of them."""
    cfg = config("model=ast", "peft=adalora", "augmentation=off")
    blocks = run(cfg, folder)
    assert 0 <= blocks["peft"]["merged_max_error"] < 1e-4
    assert blocks["peft"]["learning_rate"] == cfg.peft.learning_rate
    assert blocks["peft"]["head_learning_rate"] == pytest.approx(1 / 96)
    model = load_run_model(folder)
    data = instantiate(cfg.data)
    data.prepare((model.sample_rate,))
    store = data.waveforms("test", model.sample_rate)
    frame = pd.read_parquet(folder / "predictions.parquet").set_index("sample_id")
    grid = int(cfg.data.quantum * model.sample_rate)
    for row, sample_id in list(enumerate(data.rows("test")["sample_id"]))[:3]:
        clip = torch.from_numpy(store.read(row).astype(np.float32) / 32768)
        padded = torch.nn.functional.pad(clip, (0, -len(clip) % grid))
        with torch.no_grad():
            logits = model(padded[None], torch.tensor([len(clip)]))[0]
        np.testing.assert_allclose(frame.loc[sample_id, "logits"], logits, atol=1e-4)


@pytest.mark.slow
def test_a_resumed_run_repeats_what_the_first_attempt_had_to_say(config, folder, monkeypatch):
    original = Classifier._backward

    def hungry(self, *step):
        if self.micro_batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, *step)

    cfg = config("model=efficientat", "trainer.train_batches=2")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "_backward", hungry)
        interrupt(patch, cfg, folder, 3)
    blocks = run(cfg, folder)
    assert any("memory ran out" in message for message in blocks["warnings"])
    assert blocks["efficiency"]["micro_batch_size"] == 2
    assert blocks["phases"]["fit"] == pytest.approx(blocks["efficiency"]["training_time_seconds"])


def test_a_log_that_cannot_be_closed_is_a_warning(config, folder, monkeypatch):
    def fail(self, exit_code):
        raise OSError("No space left on device")

    monkeypatch.setattr("sousa_bench.training.loggers.RunLogger.finish", fail)
    blocks = run(config("model=efficientat", "trainer.max_epochs=1", "trainer.train_batches=1"), folder)
    assert blocks["metrics"]["test_acc"] is not None
    assert any("could not be closed" in message for message in blocks["warnings"])


def test_an_unreadable_checkpoint_starts_afresh_and_says_so(config, folder, caplog):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").write_bytes(b"torn")
    blocks = run(config("model=efficientat", "trainer.max_epochs=1", "trainer.train_batches=1"), folder)
    assert "the run starts afresh" in caplog.text
    assert len(blocks["history"]) == 1


def test_a_validation_loss_of_nan_fails_while_the_checkpoint_stands(config, folder, monkeypatch):
    original = Inputs.logits

    def broken(self, rows=slice(None)):
        logits = original(self, rows)
        return logits if torch.is_grad_enabled() or not (folder / "checkpoints").exists() else logits * float("nan")

    monkeypatch.setattr(Inputs, "logits", broken)
    with pytest.raises(NonFiniteLossError, match="validation loss became nan after epoch 2"):
        run(config("model=efficientat", "trainer.train_batches=1"), folder)
    assert (folder / "checkpoints" / "last.pt").exists()
