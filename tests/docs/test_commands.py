"""The commands that the documentation prints are run, shortened by overrides where they are long."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from sousa_bench.config.composing import remember_files
from sousa_bench.config.overrides import with_quotes
from sousa_bench.config.settings import check_values
from sousa_bench.sweep.plan import refusal
from tests.cases import check_each

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(os.environ.get("SOUSA_SAMPLE", ROOT.parent / "shared" / "sousa_sample"))
SHORTER = ["trainer.max_epochs=1", "trainer.train_batches=1", "trainer.eval_batches=1", "trainer.batch_size=4"]
LESS = {  # of what an experiment sweeps over
    "experiment=comparison": ("model=ast,htsat", "peft=lora,ia3", "augmentation=on"),
    "experiment=smoke": ("model=ast,htsat", "peft=lora,ia3", "augmentation=on"),
    "experiment=baselines": ("model=ast,htsat", "peft=probe"),
    "experiment=budget": ("peft=lora,bottleneck", "peft.budget=1%"),
    "experiment=models": ("model=ast,ced", "peft=lora,head"),
}
LIST = re.compile(r"[\w.]+=[^,\[\]()]+(,[^,\[\]()]+)+")
ELSEWHERE = ("docs/from_sweep_to_model.md", "docs/extending.md", "docs/your_data.md")  # run by tests of their own
FENCE = re.compile(r"```bash\n(.*?)```", re.S)


def printed_commands() -> list[tuple[str, str]]:
    """(page, command) of every `python -m sousa_bench.…` line in a bash block."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in FENCE.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                position = line.find("python -m sousa_bench.")
                if position >= 0:
                    found.append((str(page.relative_to(ROOT)), line[position:].split("  #")[0].strip()))
    return found


COMMANDS = printed_commands()


def test_every_page_that_shows_commands_is_found():
    pages = {page for page, _ in COMMANDS}
    assert {"README.md", "docs/sweep_guide.md", "docs/augmentation.md"} <= pages


def shortened(command: str, values: int = 1) -> list[str]:
    """The command as an argument list, cut down to seconds, with so many values of each key that it sweeps over."""
    words = shlex.split(command)[1:]
    if words[1] == "sousa_bench.analyze" and len(words) > 2 and "--no-plots" not in words:
        words.append("--no-images")  # a browser draws them; the README's command has them
    if words[1] == "sousa_bench.train" and "--help" not in words:
        given = {word.split("=")[0] for word in words}
        words += [word for word in SHORTER if word.split("=")[0] not in given]
        words = [w if not w.startswith("trainer.max_epochs") else "trainer.max_epochs=1" for w in words]
        if any(re.match(r"data=(tiny|mini|small|medium|full)", word) for word in words):
            words.append(f"data.root={SAMPLE / 'generator'}")
        words += [less for word in words for less in LESS.get(word, ()) if less.split("=")[0] not in given]
        words = [",".join(word.split(",")[:values]) if LIST.fullmatch(word) else word for word in words]
        if "weights=official" in words:  # no hub here: the small variant with random weights stands in
            words = [w for w in words if not w.startswith("model.variant=")]
            words[words.index("weights=official")] = "weights=random"
    return [sys.executable, *words]


ANY_COMMAND = re.compile(r"python -m sousa_bench\.(?:train|pretrain) +[^`\n]+")
BLANK = re.compile(r"…|<\w+>")  # whatever the reader puts there
NO_CONFIG = re.compile(r"KEY=|\[-m\]|--config-dir|my_metrics")  # a pattern of a command; what lies elsewhere
LAUNCHED = ("hydra", "search")  # what the front end adds groups for


def overrides_in_text() -> list[tuple[str, str]]:
    """(page, words) of every training command on any page, in whatever block, and in the heads of the configs."""
    found = []
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "conf").rglob("*.yaml"))]
    for page in pages:
        for command in ANY_COMMAND.findall(page.read_text().replace("\\\n", " ")):
            found.append((str(page.relative_to(ROOT)), command.split("  ")[0].split(" #")[0].strip()))
    return list(dict.fromkeys(found))


def values(override: Override) -> list[str]:
    """The override with each of its values; none of a search over an interval."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if not (override.is_choice_sweep() or override.is_range_sweep()):
        return []
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


@pytest.mark.slow
def test_every_value_in_the_text_is_one_that_a_run_takes():
    """Each value of each override, in as few runs of its command as have them all."""
    parser, refused, problems = OverridesParser.create(), dict[frozenset[str], str | None](), []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        remember_files(GlobalHydra.instance().config_loader())
        for page, command in overrides_in_text():
            if NO_CONFIG.search(command):
                continue
            words = [
                w
                for w in shlex.split(BLANK.sub("x", command))[3:]
                if ("=" in w or w[0] == "~") and not w.startswith(LAUNCHED)
            ]
            if {"weights=embedded", "weights=further"} & set(words):  # whose files are looked for at once
                words = [w for w in words if not w.startswith("model.checkpoint=")]
                words = ["weights=embedded" if w == "weights=further" else w for w in words]
            # Published files are looked for at once, too, but for those elsewhere.
            words = ["model.checkpoint=x/x" if w.startswith("model.checkpoint=") else w for w in words]
            try:
                lists = list(filter(None, map(values, parser.parse_overrides(with_quotes(words)))))
                runs = {
                    frozenset(each[i % len(each)] for each in lists) for i in range(max(map(len, lists), default=1))
                }
                for run in runs - refused.keys():
                    cfg = compose("config", sorted(run))
                    check_values(cfg)
                    refused[run] = refusal(cfg)
                assert any(refused[run] is None for run in runs), [refused[run] for run in runs]
            except Exception as error:
                problems.append(f"{page}: {command}\n    {error}")
    assert len(refused) > 120
    assert not problems, "\n".join(problems)


def runnable(page: str, command: str) -> bool:
    kinds = tuple(f"python -m sousa_bench.{name}" for name in ("train", "analyze", "status"))
    return command.startswith(kinds) and "slurm" not in command and "…" not in command and page not in ELSEWHERE


def commands_by_page() -> dict[str, dict[str, list[str]]]:
    """The words by which each command runs; of those that differ in nothing but their model, the first one's.

    A sweep that is analysed keeps two values of each key, since a report compares; another one is a single run.
    """
    found: dict[str, dict[str, list[str]]] = {}
    done = set()
    for i, (page, command) in enumerate(COMMANDS):
        if runnable(page, command):
            name = re.search(r"sweep=(\w+)", command)
            later = [other for place, other in COMMANDS[i + 1 :] if place == page and "sousa_bench.analyze" in other]
            if name:
                compared = any(f"multirun/{name[1]}" in other for other in later)
            else:
                compared = COMMANDS[i + 1 : i + 2] == [(page, "python -m sousa_bench.analyze")]
            words = shortened(command, 2 if compared else 1)
            kind = frozenset(word for word in words if not word.startswith("model="))
            if kind not in done:
                done.add(kind)
                found.setdefault(page, {})[command] = words
    return found


BY_PAGE = commands_by_page()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", BY_PAGE)
def test_commands_of_a_page_in_order(page, tmp_path):
    """In one folder, since later ones take up what earlier ones left."""
    if not SAMPLE.is_dir():
        pytest.skip(f"needs the sample data in {SAMPLE} (SOUSA_SAMPLE)")

    def check(command: str, words: list[str]) -> None:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-800:]}\n{done.stderr[-800:]}"

    check_each(BY_PAGE[page].items(), check)
