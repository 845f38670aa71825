"""The words of the present command line: older spellings, what a run's own command repeats of them."""

from __future__ import annotations

import shlex
import sys


def spell_augmentation(argv: list[str]) -> None:
    """Let ``augmentation=true|false``, the older runner's spelling, mean ``on|off``."""
    for place, word in enumerate(argv):
        key, equals, value = word.partition("=")
        if key == "augmentation" and equals:
            argv[place] = f"{key}=" + ",".join(
                {"true": "on", "false": "off"}.get(choice.strip().lower(), choice) for choice in value.split(",")
            )


def spell_search(argv: list[str]) -> None:
    """Let ``search=lora``, or ``+search=lora``, be enough: a space of a search goes to the sweeper that searches."""
    asked = [place for place, word in enumerate(argv) if word.lstrip("+").startswith("search=")]
    for place in asked:
        argv[place] = argv[place].lstrip("+")
    if any(argv[place] != "search=null" for place in asked) and not any(w.startswith("hydra/sweeper=") for w in argv):
        argv.append("hydra/sweeper=optuna")


def hydra_words() -> list[str]:
    """Overrides of the present command that tell Hydra where runs go and how they are launched.

    What belongs to the sweeper is left out: it says which runs there are, and a run's own command names one.
    """
    words = [word for word in sys.argv[1:] if word.startswith(("hydra.", "hydra/"))]
    return [word for word in words if not word.startswith(("hydra.sweeper", "hydra/sweeper"))]


def flags() -> list[str]:
    """Flags of the present command that choose where configs come from."""
    found, words = [], iter(sys.argv[1:])
    for word in words:
        name = word.partition("=")[0]
        if name in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"):
            found.append(word)
            if "=" not in word:
                found.append(next(words, ""))
    return found


def resume_command(name: str) -> str:
    """The command that goes on with the sweep of that name."""
    words = [word for word in sys.argv[1:] if word.partition("=")[0] not in ("sweep", "resume", "force")]
    if "-m" not in words and "--multirun" not in words:
        words.insert(0, "-m")
    return shlex.join(["python", "-m", "sousa_bench.train", *words, f"sweep={name}"])
