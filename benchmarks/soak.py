"""Kill a sweep at random instants, resume it each time, and compare with the sweep that nobody killed.

    python -m benchmarks.soak --kills 50                     stand-ins: a minute or two
    python -m benchmarks.soak --kills 50 --real              training runs of the four tiny models

What is killed changes from time to time: the supervisor, the run, the fork server, the whole process group, or all of
them at once. With `--real` the clip cache is attacked as well: while a sweep goes on its files are deleted or cut, and
between two commands flipped, too. It ends with exit code 0 only when exactly the fingerprints asked for are completed,
each once, with bitwise the same metrics, predictions and weights as in the undisturbed sweep.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sousa_bench.system.files import file_hash
from tests.sweep.running import APP, Command, until

STANDIN = ("seed=1,2,3,4", "task.steps=60", "task.seconds=0.02")
COMBINATIONS = (
    ("model=ast", "peft=adalora"),
    ("model=htsat", "peft=lora"),
    ("model=beats", "peft=adalora"),
    ("model=efficientat", "peft=lora"),
    ("model=htsat", "peft=adalora"),
    ("model=ast", "peft=head", "augmentation=off"),
)
REAL = (
    f"hydra.sweeper.combinations={json.dumps(COMBINATIONS, separators=(',', ':'))}",
    "trainer.max_epochs=3",
    "trainer.early_stopping=2",
    "trainer.tested_epoch=best",
    "trainer.accelerator=cpu",
    "data.synthetic.clips=140",
    "trainer.checkpoint_minutes=0.01",
    "logger=none",
    "n_jobs=auto",
)
GPUS = "0,1"  # two runs at a time, each on a GPU of its own, though none of them needs it
VICTIMS = ("supervisor", "run", "server", "group", "everything")
EXACT = ("metrics", "per_class", "history")
CLOCKS = ("seconds", "train_seconds", "val_seconds")
IN_USE = ("deleted", "cut")  # of a cache that a process has begun to read: no file is checked twice by one process
DAMAGES = (*IN_USE, "flipped")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the instants and victims")
    parser.add_argument("--real", action="store_true", help="training runs instead of stand-ins")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(soak(Path(name), options.kills, random.Random(options.seed), real=options.real))  # noqa: S311 - no secret


def soak(folder: Path, kills: int, dice: random.Random, *, real: bool) -> int:
    """Do it in ``folder``; 0 when every promise held."""
    program = [sys.executable, "-m", "sousa_bench.train"] if real else APP
    words = ["-m", *(REAL if real else STANDIN), "sweep=soak"]
    calm, stormy = (
        Command(folder / name, program, SOUSA_BENCH_CACHE=str(folder / f"{name}_cache"), CUDA_VISIBLE_DEVICES=GPUS)
        for name in ("calm", "stormy")
    )
    cache = Cache(folder / "stormy_cache", dice)
    calm.folder.mkdir()
    stormy.folder.mkdir()
    started = time.monotonic()
    calm(*words, timeout=3600)
    length = time.monotonic() - started
    print(f"undisturbed: {length:.0f} s", flush=True)
    struck: dict[str, int] = dict.fromkeys(VICTIMS, 0)
    attempts = 0
    while sum(struck.values()) < kills:
        attempts += 1
        if not pending(stormy):  # everything is completed: begin once more, and lose nothing that is kept
            (stormy.folder / f"round_{attempts}").mkdir()
            (stormy.folder / "multirun").rename(stormy.folder / f"round_{attempts}" / "multirun")
        victim = dice.choice(VICTIMS)
        if strike(stormy, words, victim, dice.uniform(0.0, 0.6 * length), cache):
            struck[victim] += 1
            print(f"kill {sum(struck.values())}/{kills}: {victim}", flush=True)
        check_files(stormy.folder)
        cache.attack(DAMAGES)
    stormy(*words, timeout=3600)
    rounds = [stormy.folder, *sorted(path for path in stormy.folder.glob("round_*"))]
    faults = [fault for place in rounds for fault in differences(calm.folder, place)]
    if real and kills >= 2 * len(DAMAGES) and not all(cache.attacks.values()):
        faults.append("the cache was not attacked in each way")
    print(f"{kills} kills ({counts(struck)}) and attacks on the cache ({counts(cache.attacks)}), {len(rounds)} sweeps,")
    print(f"{len(facts(calm.folder))} runs each, {time.monotonic() - started:.0f} s")
    print("\n".join(faults) or "every sweep ended with the same runs, each once, and bitwise the same numbers")
    return 1 if faults else 0


def counts(events: dict[str, int]) -> str:
    """How often each happened."""
    return ", ".join(f"{count} {name}" for name, count in events.items())


class Cache:
    """The clip cache of a sweep, which someone damages.

    Attributes:
        attacks: How often in each way.
    """

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.attacks = dict.fromkeys(DAMAGES, 0)
        self._folder = folder
        self._dice = dice

    def attack(self, ways: Sequence[str]) -> None:
        """Damage one of its files in one of the ways; every other time, as the dice fall, nothing."""
        way, number, place = self._dice.choice((*ways, *[None] * len(ways))), self._dice.random(), self._dice.random()
        files = sorted(path for kind in ("*.s16", "*.safetensors") for path in self._folder.glob(f"clips/**/{kind}"))
        if way is None or not files:
            return
        file = files[int(number * len(files))]
        with suppress(FileNotFoundError):  # a process that makes it anew is faster
            if way == "deleted":
                file.unlink()
            elif way == "cut":
                os.truncate(file, int(place * file.stat().st_size))
            else:
                content = bytearray(file.read_bytes())
                content[int(place * len(content))] ^= 1 << int(8 * number)
                file.write_bytes(content)
            self.attacks[way] += 1
            print(f"cache: {file.name} {way}", flush=True)


def strike(command: Command, words: Sequence[str], victim: str, delay: float, cache: Cache) -> bool:
    """Start or resume the sweep, and kill the victim after ``delay`` seconds of work; False when it had ended.

    Half the time before, a file of the cache is damaged; a run that was reading it may say so and fail.
    """
    process, before = command.start(*words), sum(cache.attacks.values())
    try:
        until(lambda: process.poll() is not None or list(command.folder.glob("multirun/soak/*/progress.json")), 120)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=delay / 2)
        cache.attack(IN_USE)
        output, _ = process.communicate(timeout=delay / 2)
        attacked = sum(cache.attacks.values()) > before
        assert process.returncode == 0 or (process.returncode == 1 and attacked), output
        return False
    except subprocess.TimeoutExpired:
        pass
    hit = [pid for pid in targets(command, process.pid, victim) if _kill(pid)]
    if victim in ("run", "server"):
        process.communicate(timeout=3600)
    else:
        process.wait()
    until(lambda: not command.processes(), 30)
    return bool(hit)


def targets(command: Command, supervisor: int, victim: str) -> list[int]:
    """The process ids that a strike kills; negative for a process group."""
    living = command.processes()
    if victim == "everything":
        return living
    if victim in ("supervisor", "group"):
        return [supervisor if victim == "supervisor" else -supervisor]
    runs = [int(facts["pid"]) for facts in progresses(command) if int(facts.get("pid", 0)) in living]
    return runs if victim == "run" else [pid for pid in living if pid not in runs and pid != supervisor][:1]


def progresses(command: Command) -> list[dict[str, Any]]:
    """The progress files of the sweep's runs."""
    return [json.loads(path.read_text()) for path in command.folder.glob("multirun/soak/*/progress.json")]


def pending(command: Command) -> bool:
    """Whether a run of the sweep is not completed yet."""
    statuses = [json.loads(path.read_text())["status"] for path in command.folder.glob("multirun/soak/*/result.json")]
    wanted = command.folder / "multirun" / "soak" / "sweep.json"
    return not wanted.exists() or statuses.count("completed") < len(json.loads(wanted.read_text())["jobs"])


def check_files(folder: Path) -> None:
    """No file is ever torn."""
    for path in folder.glob("multirun/soak/*/*.json"):
        json.loads(path.read_text())


def facts(folder: Path) -> dict[str, Any]:
    """What must be the same, by fingerprint."""
    found: dict[str, Any] = {}
    for path in folder.glob("multirun/soak/*/result.json"):
        result = json.loads(path.read_text())
        assert result["fingerprint"] not in found, f"{path}: done twice"
        history = [{key: value for key, value in epoch.items() if key not in CLOCKS} for epoch in result["history"]]
        found[result["fingerprint"]] = {
            "status": result["status"],
            **{key: result.get(key) for key in EXACT},
            "history": history,
            **{file.name: file_hash(file) for file in sorted(path.parent.glob("adapter/*.safetensors"))},
            "predictions": file_hash(path.parent / "predictions.parquet") if result.get("files") else None,
        }
    return found


def differences(calm: Path, stormy: Path) -> list[str]:
    """How a sweep that was killed differs from the one that was not."""
    wanted, got = facts(calm), facts(stormy)
    if wanted.keys() != got.keys():
        return [f"{stormy.name}: other runs than were asked for: {sorted(wanted.keys() ^ got.keys())}"]
    return [
        f"{stormy.name}: {digest[:8]}: {key} differs"
        for digest, result in wanted.items()
        for key in result
        if result[key] != got[digest][key]
    ]


def _kill(pid: int) -> bool:
    try:
        if pid < 0:
            os.killpg(-pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


if __name__ == "__main__":
    main()
