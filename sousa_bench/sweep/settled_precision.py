"""Which precision ``trainer.precision=auto`` is on a CPU: settled for each network before any run starts."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.run_config import value_at
from sousa_bench.data.cache_folder import cache_root
from sousa_bench.errors import first_line
from sousa_bench.models.published import sizes
from sousa_bench.models.weight_files import default_variant
from sousa_bench.results.index import EarlierResult, ResultIndex
from sousa_bench.results.result import NETWORK_KEYS, PRECISION_KEY, write_json
from sousa_bench.sweep.output import say
from sousa_bench.sweep.plan import Candidate
from sousa_bench.sweep.resources import visible_gpus
from sousa_bench.system.foreign import read_json
from sousa_bench.system.processor import kind, takes_bfloat16
from sousa_bench.system.python import python_environment
from sousa_bench.system.text_table import amount

LARGE = 10**9
"""Multiply-adds of a clip from which on a network counts: below, there is more to a step than matrix products."""
PAYS = 1.2
"""Times as fast as float32 from which on bfloat16 is taken."""
FILE = "bfloat16.json"
PATIENCE = 120.0
MIXED = "bf16-mixed"
DEPTHWISE = ("efficientat",)
"""Networks of depthwise convolutions: these are not kept in float32 as others in groups are
(:mod:`~sousa_bench.models.grouped_convolution`), so that their whole network is, unless bfloat16 is asked for."""
Network = tuple[str, str, str]
"""Name, variant, kind of weights."""
_told: set[tuple[Network, bool]] = set()


def settled(
    candidates: Sequence[Candidate],
    results: ResultIndex | None,
    queued: Container[str] = (),
    launcher: str | None = None,
) -> list[Candidate]:
    """The runs of a command with their precision.

    Where a large network is left to ``auto`` on a CPU of this machine, its runs go on in the precision that most
    earlier ones have. Where there are none, they are trained in bfloat16 if the machine gains by it. A run that exists
    in either precision keeps it.

    Args:
        candidates: All of the command.
        results: What earlier commands left behind; None: neither they nor the queue count.
        queued: Fingerprints of the runs in Slurm's queue.
        launcher: The target of Hydra's launcher; None for a run in this process. Other machines aren't measured.
    """
    left = [candidate for candidate in candidates if _is_left_open(candidate.source.values)]
    if left and visible_gpus():
        left = [candidate for candidate in left if value_at(candidate.source.values, "trainer.accelerator") == "cpu"]
    if not left:
        return list(candidates)
    here = launcher is None or launcher.endswith(".LocalLauncher")
    earlier = _by_network(results)
    groups: dict[Network, list[Candidate]] = defaultdict(list)
    for candidate in left:
        groups[_network(candidate.source.values)].append(candidate)
    pays = cache(lambda: here and _gain(left[0].source.values) >= PAYS)
    measured: list[Network] = []
    made: dict[int, Candidate] = {}
    for network, group in groups.items():
        before = earlier.get(network, [])
        mixed = [_in_bfloat16(candidate) for candidate in group]
        pairs = list(zip(group, mixed, strict=True))
        own = [None if results is None else _existing(pair, results, queued) for pair in pairs]
        if before and here:
            alike = sum(run.cpu_precision == MIXED for run in before)
            choice = 2 * alike > len(before)
            most = alike if choice else len(before) - alike
            _tell([network], choice, f"as in {most:,} of {amount(len(before), 'earlier run')} of it")
        elif waiting := next(filter(None, own), None):
            choice = waiting in mixed
        else:
            measured.append(network)
            choice = pays()
        made |= {id(pair[0]): kept or pair[choice] for pair, kept in zip(pairs, own, strict=True)}
    if measured and here:
        _tell(measured, pays(), "as measured here")
    return [made.get(id(candidate), candidate) for candidate in candidates]


def _existing(pair: Sequence[Candidate], results: ResultIndex, queued: Container[str]) -> Candidate | None:
    """That of a run's two precisions in which it exists: completed, in Slurm's queue, or begun last; or None."""
    ranks = [
        max(
            [(result.status == "completed", False, result.timestamp) for result in results.of(each.digest, Path())]
            + [(False, True, "")] * (each.digest in queued),
            default=None,
        )
        for each in pair
    ]
    known = [(rank, each) for rank, each in zip(ranks, pair, strict=True) if rank is not None]
    return max(known, key=itemgetter(0))[1] if known else None


def _by_network(results: ResultIndex | None) -> dict[Network, list[EarlierResult]]:
    """Earlier runs on CPUs whose precision can decide, by network: the completed ones, or all where none is."""
    found: dict[Network, list[EarlierResult]] = defaultdict(list)
    for result in results or ():
        if result.cpu_precision in ("auto", MIXED):
            found[_named(*result.network)].append(result)
    done = {network: [run for run in runs if run.status == "completed"] for network, runs in found.items()}
    return {network: done[network] or runs for network, runs in found.items()}


def _network(config: Mapping[str, Any]) -> Network:
    return _named(*(value_at(config, key) for key in NETWORK_KEYS))


def _named(name: Any, variant: Any, weights: Any) -> Network:
    return str(name), str(variant or default_variant(str(weights))), str(weights)


def _tell(networks: Sequence[Network], mixed: bool, why: str) -> None:
    """Say which precision networks have and why, once in a command, however many batches it has."""
    new = [network for network in networks if (network, mixed) not in _told]
    if new and (mixed or takes_bfloat16()):
        _told.update((network, mixed) for network in new)
        names = ", ".join(f"{name} {variant}" for name, variant, _ in new)
        say(f"trainer.precision=auto is {MIXED if mixed else '32-true'} for {names}, {why}")


def _is_left_open(config: Mapping[str, Any]) -> bool:
    """Whether a large network may be trained in either precision, if it is on a CPU."""
    trainer = config.get("trainer") or {}
    if trainer.get("precision") != "auto" or trainer.get("accelerator") not in ("auto", "cpu"):
        return False
    name, variant, _ = _network(config)
    size = sizes().get((name, variant))
    return size is not None and size.multiply_adds >= LARGE and name not in DEPTHWISE


def _in_bfloat16(candidate: Candidate) -> Candidate:
    source = candidate.source.having(PRECISION_KEY, MIXED)
    overrides = [*candidate.overrides, f"{PRECISION_KEY}={MIXED}"]
    return replace(candidate, source=source, overrides=overrides, digest=fingerprint(source.values))


def _gain(config: Mapping[str, Any]) -> float:
    """How many times as fast bfloat16 is here: measured once for a processor and a version of torch, and remembered."""
    if not takes_bfloat16():
        return 1.0
    file = cache_root(value_at(config, "data.cache_dir")) / FILE
    key = f"{kind()}, torch {version('torch')}"
    known: dict[str, float] = {}
    with suppress(OSError, ValueError, TypeError):  # damaged: measured again
        known = {str(name): float(gain) for name, gain in dict(read_json(file)).items()}
    if key in known:
        return known[key]
    words = [sys.executable, "-m", "sousa_bench.training.bfloat16_gain"]
    try:
        done = subprocess.run(
            words, env=python_environment(), capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        gain = float(done.stdout)
        told = f"This processor trains {gain:.2f} times as fast in bfloat16 as in float32"
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        lines = str(getattr(error, "stderr", None) or "").split("\n")
        why = next((line for line in reversed(lines) if line.strip()), first_line(error))
        gain, told = 1.0, f"Warning: bfloat16 can't be measured here ({why}); trainer.precision=auto is 32-true"
    try:
        write_json(file, {**known, key: gain})
    except OSError as error:  # a full disk
        say(f"{told}; the next command measures again, as {file} can't be written ({error.strerror})")
    else:
        say(f"{told}; {file} remembers it, and without this file it is measured again")
    return gain
