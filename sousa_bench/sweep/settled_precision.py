"""Which precision ``trainer.precision=auto`` is on a CPU: settled for all runs of a command before any starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.data.cache_folder import cache_root
from sousa_bench.errors import first_line
from sousa_bench.models.published import sizes
from sousa_bench.models.weight_files import default_variant
from sousa_bench.results.index import ResultIndex
from sousa_bench.results.result import write_json
from sousa_bench.sweep.output import say
from sousa_bench.sweep.plan import Candidate
from sousa_bench.sweep.resources import visible_gpus
from sousa_bench.system.foreign import read_json
from sousa_bench.system.processor import kind, takes_bfloat16
from sousa_bench.system.python import python_environment

LARGE = 10**9
"""Multiply-adds of a clip from which on a network counts: below, there is more to a step than matrix products."""
PAYS = 1.2
"""Times as fast as float32 from which on bfloat16 is taken."""
FILE = "bfloat16.json"
PATIENCE = 120.0


def settled(
    candidates: Sequence[Candidate], results: ResultIndex | None, launcher: str | None = None
) -> list[Candidate]:
    """The runs of a command with their precision.

    Where large networks are left to ``auto`` on a CPU, they are trained in bfloat16 if this machine is to train them
    and gains by it. Runs that exist, in one precision or the other, decide for all that go on with them.

    Args:
        candidates: All of the command.
        results: What earlier commands left behind; None: earlier results don't count.
        launcher: The target of Hydra's launcher; None for a run in this process. Other machines aren't measured.
    """
    left = [candidate for candidate in candidates if _is_left_open(candidate.config)]
    if left and visible_gpus():
        left = [candidate for candidate in left if candidate.config.trainer.accelerator == "cpu"]
    if not left:
        return list(candidates)
    here = launcher is None or launcher.endswith(".LocalLauncher")
    if results is not None and any(results.of(candidate.digest, Path()) for candidate in left):
        return list(candidates)
    mixed = {id(candidate): _in_bfloat16(candidate) for candidate in left}
    exist = results is not None and any(results.of(candidate.digest, Path()) for candidate in mixed.values())
    if not exist and not (here and _gain(left[0].config) >= PAYS):
        return list(candidates)
    say("trainer.precision=auto: bf16-mixed for networks of published size (32-true is the other choice)")
    return [mixed.get(id(candidate), candidate) for candidate in candidates]


def _is_left_open(config: DictConfig) -> bool:
    """Whether a large network may be trained in either precision, if it is on a CPU."""
    trainer = OmegaConf.select(config, "trainer", default={})
    if trainer.get("precision") != "auto" or trainer.get("accelerator") not in ("auto", "cpu"):
        return False
    model = OmegaConf.select(config, "model", default={})
    variant = model.get("variant") or default_variant(str(model.get("weights")))
    size = sizes().get((str(model.get("name")), str(variant)))
    return size is not None and size.multiply_adds >= LARGE


def _in_bfloat16(candidate: Candidate) -> Candidate:
    config = candidate.config.copy()
    config.trainer.precision = "bf16-mixed"
    overrides = [*candidate.overrides, "trainer.precision=bf16-mixed"]
    return replace(candidate, config=config, overrides=overrides, digest=fingerprint(config))


def _gain(config: DictConfig) -> float:
    """How many times as fast bfloat16 is here: measured once for a processor and a version of torch, and remembered."""
    if not takes_bfloat16():
        return 1.0
    file = cache_root(OmegaConf.select(config, "data.cache_dir", default=None)) / FILE
    key = f"{kind()}, torch {version('torch')}"
    known: dict[str, float] = {}
    with suppress(OSError, ValueError, TypeError):  # damaged: measured again
        known = {str(name): float(gain) for name, gain in dict(read_json(file)).items()}
    if key in known:
        return known[key]
    words = [sys.executable, "-m", "sousa_bench.training.bfloat16_gain"]
    try:
        done = subprocess.run(words, env=python_environment(), capture_output=True, text=True, timeout=PATIENCE)
        gain = float(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        say(f"Warning: bfloat16 can't be measured here ({first_line(error)}); trainer.precision=auto is 32-true")
        return 1.0
    say(f"This processor trains {gain:.2f} times as fast in bfloat16 as in float32; {file} remembers it")
    with suppress(OSError):  # a full disk: it is measured again
        write_json(file, {**known, key: gain})
    return gain
