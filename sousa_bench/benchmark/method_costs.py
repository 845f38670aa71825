"""What a method costs beside the same network under the others: memory and time of a training step, and of a clip."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config import conf_folder
from sousa_bench.config.composing import composed
from sousa_bench.errors import ConfigError
from sousa_bench.peft import precheck
from sousa_bench.peft.options import takes_no_steps

REFERENCES = ("head", "full")
"""What the others' seconds are divided by."""
CLIP_SECONDS = 5.0
WORDS = ("augmentation=off", "trainer.feature_memory_mb=0")
"""Nothing is remembered of a clip, so that the head's step takes the whole network's forward pass, as the others'."""


def method_costs(overrides: Sequence[str], *, repeats: int, methods: Sequence[str]) -> dict[str, Any]:
    """Take training steps under methods that fit a model, in turns and in one process.

    Args:
        overrides: Which model, data and batch.
        repeats: Turns, whose medians count.
        methods: Which, those of ``REFERENCES`` among them; see :func:`fitting`.

    Returns:
        ``methods``: for each ``method``, ``setup``, ``trainable``, ``peak_bytes`` (most that parameters, their
        gradients, AdamW's moments and what a step allocates take at a time), ``activation_bytes`` (what the forward
        pass keeps for the backward pass), ``step_seconds`` (processor seconds of one thread; on a GPU of the clock),
        ``of_head`` and ``of_full``, ``latency_ms`` of a clip once the method is merged, and whether it ``merges``.
    """
    torch.set_num_threads(1)
    turns = [
        {name: _measured([*WORDS, *overrides, f"peft={name}"], turn == 0) for name in methods}
        for turn in range(repeats)
    ]
    medians = {
        name: {key: statistics.median(turn[name][key] for turn in turns) for key in ("step_seconds", "latency_ms")}
        for name in methods
    }
    head, full = (medians[name]["step_seconds"] for name in REFERENCES)
    rows = []
    for name, median in medians.items():
        seconds = median["step_seconds"]
        own = {"method": name, "setup": " ".join([*overrides, f"peft={name}"])}
        rows.append({**own, **turns[0][name], **median, "of_head": seconds / head, "of_full": seconds / full})
    return {"methods": rows}


def fitting(overrides: Sequence[str], methods: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """What there is to measure on a model, before anything is.

    Args:
        overrides: Which model, data and batch.
        methods: Which; none: all of the package that take steps.

    Returns:
        ``REFERENCES`` and the methods that fit the model; of those that were named, why others don't.

    Raises:
        ConfigError: An override is set here, a method doesn't exist or takes no steps, or the model can't train.
    """
    own = {word.partition("=")[0]: word for word in WORDS}
    for word in overrides:
        if own.get(word.partition("=")[0], word) != word:
            raise ConfigError(f"{word}: the part methods measures with {' '.join(WORDS)}; leave it out")
    every = sorted(file.stem for file in (conf_folder() / "peft").glob("*.yaml"))
    found, unfit = [], []
    for name in dict.fromkeys([*REFERENCES, *(methods or every)]):
        cfg = composed([*overrides, f"peft={name}"])
        if takes_no_steps(cfg.peft):
            if methods:
                raise ConfigError(f"--methods {name}: it takes no steps, so that there is none to measure")
        elif (reason := precheck(cfg.model, cfg.peft)) is None:
            found.append(name)
        elif name in REFERENCES:
            raise ConfigError(reason)
        elif methods:
            unfit.append(reason)
    return found, unfit


def _measured(overrides: Sequence[str], memory: bool) -> dict[str, Any]:
    """One method, freshly built; memory, which every turn would repeat, is measured where that is asked."""
    setup = Setup.of(composed(overrides))
    module, optimizer = setup.module, setup.module.configure_optimizers()
    batch = setup.batches(0)[0]
    inputs = module.training_inputs(batch)

    def step() -> None:
        with setup.autocast:
            module.update(optimizer, inputs, len(batch.members))

    module.injection.train_mode()
    step()  # warms up, and makes AdamW's moments
    made: dict[str, Any] = {"step_seconds": setup.own_seconds(step)}
    if memory:
        moments = (part for state in optimizer.state.values() for part in state.values() if isinstance(part, Tensor))
        standing = _bytes([*module.model.parameters(), *module.model.buffers(), *moments])
        made |= {
            "trainable": module.injection.parameters["trainable"],
            "peak_bytes": _peak(setup, step, standing),
            "activation_bytes": _kept_for_backward(setup, step),
        }
    return made | _after_training(setup)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of distinct storages."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _peak(setup: Setup, step: Callable[[], None], standing: int) -> int:
    """Bytes at the highest point of a step."""
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        setup.seconds(step)
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as watched:
        step()
    assert watched.profiler is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return standing + max(accumulate(changes), default=0)


def _kept_for_backward(setup: Setup, step: Callable[[], None]) -> int:
    """Bytes of what a step's graph saves, the network's own parameters and buffers left out."""
    model = setup.module.model
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values())


@torch.inference_mode()
def _after_training(setup: Setup) -> dict[str, Any]:
    """The latency of a single clip of noise, waveform to logits."""
    model, injection = setup.module.model, setup.module.injection
    try:
        model.backbone, merges = injection.merged(), True
    except NotImplementedError:
        merges = False
    model.eval()
    samples = round(CLIP_SECONDS * model.sample_rate)
    clip = torch.rand(1, samples, generator=torch.Generator().manual_seed(0)).sub(0.5).to(setup.device)
    length = torch.full((1,), samples, device=setup.device)
    with setup.autocast:
        passes = [setup.own_seconds(lambda: model(clip, length)) for _ in range(4)]
    return {"latency_ms": 1e3 * statistics.median(passes[1:]), "merges": merges}
