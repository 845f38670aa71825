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
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from sousa_bench.config.overrides import with_quotes
from tests.cases import check_each

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(os.environ.get("SOUSA_SAMPLE", ROOT.parent / "shared" / "sousa_sample"))
SHORTER = ["trainer.max_epochs=1", "trainer.train_batches=1", "trainer.eval_batches=1", "trainer.batch_size=4"]
LESS = {  # the page from sweep to model runs a whole comparison
    "experiment=comparison": ("model=ast,htsat", "peft=lora,ia3"),
    "experiment=smoke": ("model=ast,htsat", "peft=lora,ia3"),
    "experiment=baselines": ("model=ast,htsat",),
    "experiment=budget": ("model=ast", "peft=lora,bottleneck", "peft.budget=1%"),
    "experiment=models": ("model=ast,ced", "peft=lora,head"),
}
MANY = re.compile(r"[\w.]+=[^,\[\]()]+(,[^,\[\]()]+){2,}")
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


def shortened(command: str) -> list[str]:
    """The command as an argument list, cut down to seconds."""
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
        words = [",".join(word.split(",")[:2]) if MANY.fullmatch(word) else word for word in words]
        if "weights=official" in words:  # no hub here: the small variant with random weights stands in
            words[words.index("weights=official")] = "weights=random"
    return [sys.executable, *words]


ANY_COMMAND = re.compile(r"python -m sousa_bench\.(?:train|pretrain) +[^`\n]+")
BLANK = re.compile(r"…|<\w+>")  # whatever the reader puts there
NO_CONFIG = re.compile(r"KEY=|\[-m\]|--config-dir")  # a pattern of a command; configs elsewhere
LAUNCHED = ("hydra", "search")  # what the front end adds groups for


def overrides_in_text() -> list[tuple[str, str]]:
    """(page, words) of every training command on any page, in whatever block, and in the heads of the configs."""
    found = []
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "conf").rglob("*.yaml"))]
    for page in pages:
        for command in ANY_COMMAND.findall(page.read_text().replace("\\\n", " ")):
            found.append((str(page.relative_to(ROOT)), command.split("  ")[0].split(" #")[0].strip()))
    return list(dict.fromkeys(found))


def first_value(override: Override) -> str | None:
    """The override with the first of its values; None for a search over an interval."""
    if not override.is_sweep_override():
        return override.input_line
    if not (override.is_choice_sweep() or override.is_range_sweep()):
        return None
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def test_every_override_in_the_text_is_one_that_hydra_takes():
    parser, composed, problems = OverridesParser.create(), set(), []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for page, command in overrides_in_text():
            if NO_CONFIG.search(command):
                continue
            words = [
                w
                for w in shlex.split(BLANK.sub("x", command))[3:]
                if ("=" in w or w[0] == "~") and not w.startswith(LAUNCHED)
            ]
            try:
                first = frozenset(filter(None, map(first_value, parser.parse_overrides(with_quotes(words)))))
                if first not in composed:
                    compose("config", sorted(first))
                    composed.add(first)
            except Exception as error:
                problems.append(f"{page}: {command}\n    {error}")
    assert len(composed) > 80
    assert not problems, "\n".join(problems)


def runnable(page: str, command: str) -> bool:
    kinds = tuple(f"python -m sousa_bench.{name}" for name in ("train", "analyze", "status"))
    return command.startswith(kinds) and "slurm" not in command and "…" not in command and page not in ELSEWHERE


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_train_commands_of_the_pages_in_order(tmp_path):
    """In one folder, since later ones take up what earlier ones left."""
    if not SAMPLE.is_dir():
        pytest.skip(f"needs the sample data in {SAMPLE} (SOUSA_SAMPLE)")
    shorter = {tuple(shortened(command)): f"{page}: {command}" for page, command in COMMANDS if runnable(page, command)}

    def check(words: tuple[str, ...], name: str) -> None:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{name}\n{done.stdout[-800:]}\n{done.stderr[-800:]}"

    check_each(shorter.items(), check)
