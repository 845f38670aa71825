"""The command ``python -m sousa_bench.data``: what it says of data, and before any training of a test on them."""

from __future__ import annotations

import json
import shlex
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from folder_with_faults import RATE, tone, write_class_folders, write_faults, write_sound_folder

from sousa_bench.analysis.stats.sample_size import CONTRASTS, Design
from sousa_bench.config.composing import composed
from sousa_bench.data.decode import Part
from sousa_bench.inspection.inspect_data import main
from sousa_bench.inspection.listening import is_clipped, listen
from tests.cases import check_each

SMALL = ("data.synthetic.clips=80", "data.synthetic.split_players=[10,2,10]", "data.workers=1")

PLAYED = """async () => {
  const sound = document.querySelector("audio");
  const ready = new Promise((done) => { sound.oncanplaythrough = sound.onerror = done; });
  sound.preload = "auto"; sound.load(); await ready;
  return sound.error ? sound.error.message : sound.duration;
}"""


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_splits_and_what_a_test_on_them_finds(capsys: pytest.CaptureFixture[str], own_cache: Path):
    found = facts(capsys, *SMALL)
    assert [row["players"] for row in found["splits"]] == [10, 2, 10]
    assert sum(row["clips"] for row in found["splits"]) == 80
    assert found["everyone"] == 22
    assert not list(own_cache.glob("clips/*")), "nothing is decoded"
    least = {(row["contrast"], row["seeds"]): row["least"] for row in found["finds"]}
    for name in {name for name, _ in least}:
        assert least[name, 3] > least[name, 5]
    about = {row["seeds"]: row["about"] for row in found["finds"]}
    assert about == {1: "these trained models", 3: "methods", 5: "methods"}
    assert all(row["least_all"] >= row["least"] for row in found["finds"])
    [row] = [
        row for row in found["needs"] if row["contrast"] == "two methods of one model" and row["difference"] > 0.04
    ]
    assert row["players"] > 10
    lucky = facts(capsys, *SMALL, "--luck", "0")
    assert all(a["error"] < b["error"] for a, b in zip(lucky["finds"], found["finds"], strict=True) if a["seeds"] > 1)


def test_a_fold_is_described_and_the_next_command_composes(capsys: pytest.CaptureFixture[str]):
    words = ["data.synthetic.clips=80", "data.synthetic.split_players=[12,2,10]", "data.fold=2/3", "data.workers=1"]
    assert [row["players"] for row in facts(capsys, *words)["splits"]] == [8, 8, 8]
    assert main(words) == 0
    [command] = [line for line in capsys.readouterr().out.splitlines() if "sousa_bench.train" in line]
    given = shlex.split(command)
    assert given[:5] == ["python", "-m", "sousa_bench.train", "-m", "experiment=comparison"]
    assert "seed=1,2,3" in given
    assert "data.fold=1/3,2/3,3/3" in given
    assert composed([word for word in given[5:] if "," not in word or "[" in word]).data.synthetic.clips == 80


def test_real_layouts_and_few_players(capsys: pytest.CaptureFixture[str], generator: Path):
    words = ["data=tiny", f"data.root={generator}"]
    assert facts(capsys, *words)["splits"][0]["classes"] > 1
    next(generator.rglob("*.flac")).unlink()
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "error: 1 of the clips' files are missing" in said


def test_what_can_not_be_is_one_message(capsys: pytest.CaptureFixture[str]):
    def check(word: str, message: str, code: int) -> None:
        assert main([word]) == code
        assert message in capsys.readouterr().err

    check_each(
        [
            ("model=ast", "the data alone", 2),
            ("data.fold=1/5,2/5", "one value", 2),
            ("data.fold=6/5", "data.fold=6/5", 2),
            ("data=nope", "there is no such choice", 2),
            ("data.refit=val", "data.refit=val: this command describes", 2),
        ],
        check,
    )


def test_the_expected_error_is_that_of_simulated_clips():
    """Players of 2 to 14 clips, three seeds: the error that the components say is that of drawn differences."""
    rng = np.random.default_rng(0)
    sizes, seeds, luck = rng.integers(2, 15, 30), 3, 0.01
    contrast = CONTRASTS[1]
    owner = np.repeat(np.arange(30), sizes)
    clips, studies = len(owner), 4000
    taste = rng.normal(0, contrast.player**0.5, (studies, 30)) @ (sizes / clips)
    clip = rng.normal(0, (contrast.clip / clips) ** 0.5, studies)
    both = rng.normal(0, (contrast.both / clips / seeds) ** 0.5, studies)
    training = rng.normal(0, luck * (2 / seeds) ** 0.5, studies)
    said = contrast.components([int(size) for size in sizes], luck).error(Design(30, seeds))
    assert said == pytest.approx(float((taste + clip + both + training).std()), rel=0.05)


def inspected(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> tuple[int, dict]:
    code = main(["data=tiny", f"data.root={root}", *words, "--listen", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_sound_data_are_heard_and_named_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = tmp_path / "sounds"
    write_sound_folder(root)
    code, found = inspected(capsys, root)
    assert code == 0
    assert found["refused"] == []
    sounds = found["sounds"]
    assert sounds["heard"] == 12
    assert sounds["seconds"] == pytest.approx(3.6)
    assert sounds["sample_rates"] == {"16000": 12}
    assert sounds["channels"] == {"1": 12}
    assert [row["seconds"] for row in found["splits"]] == pytest.approx([1.2] * 3)
    assert {row["class"]: [row["train"], row["val"], row["test"]] for row in found["classes"]}["flam_tap"] == [2, 2, 2]
    assert composed(shlex.split(found["command"])[6:]).data.root == str(root)


def test_each_fault_of_a_sound_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = tmp_path / "sounds"
    write_faults(root)
    code, found = inspected(capsys, root)
    assert code == 1
    bad = {kind: [each["clip"] for each in clips["clips"]] for kind, clips in found["sounds"]["bad"].items()}
    assert bad == {kind: [f"{kind}.wav"] for kind in ("silent", "empty", "short", "unreadable")} | {"long": []}
    assert found["sounds"]["clipped"] == {"count": 1, "clips": ["clipped.wav"]}
    [pair] = found["sounds"]["duplicates"]["across"]["train and test"]["sounds"]
    assert [row["clip"] for row in pair] == ["train_flam_tap_0.wav", "copy.flac"], "the same sound in another format"
    refused = "\n".join(found["refused"])
    for text in ("silent.wav", "empty.wav", "unreadable.wav", "data.on_bad_clip=skip", "copy.flac (test)"):
        assert text in refused
    assert any("different classes" in message for message in found["warnings"])
    assert any("clipped" in message for message in found["warnings"])


def test_bad_clips_may_be_left_out_and_a_leak_may_not(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = tmp_path / "sounds"
    write_faults(root)
    code, found = inspected(capsys, root, "data.on_bad_clip=skip")
    assert code == 1
    [leak] = found["refused"]
    assert "1 sound stands in both train and test" in leak
    assert found["splits"][0]["clips"] == 5, "four sound ones and the clipped one"
    table = pd.read_csv(root / "metadata.csv")
    table[table["sample_id"] != "copy"].to_csv(root / "metadata.csv", index=False)
    code, found = inspected(capsys, root, "data.on_bad_clip=skip")
    assert (code, found["refused"]) == (0, [])


def test_a_player_in_train_and_test_is_refused_and_one_in_validation_warned_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    root = tmp_path / "sounds"
    table = write_sound_folder(root)
    for split, code in (("val", 0), ("test", 1)):
        table.assign(player=table["player"].replace(f"player {split}", "player train")).to_csv(
            root / "metadata.csv", index=False
        )
        assert main(["data=tiny", f"data.root={root}"]) == code
        printed = capsys.readouterr().out
        said = f"1 player with clips in both train and {split}"
        assert f"{'error' if code else 'warning'}: {said}" in printed
        assert ("sousa_bench.train" in printed) == (code == 0)


def test_a_long_recording_is_heard_to_its_end(tmp_path: Path):
    """Two recordings that differ after more than a training decodes are two sounds; the same ones in memory are one."""
    long = np.random.default_rng(1).integers(-9_000, 9_000, 90 * RATE).astype(np.int16)
    other = long.copy()
    other[-1] += 1
    for name, samples in (("a", long), ("b", other)):
        sf.write(tmp_path / f"{name}.wav", samples, RATE)
    a, b = (listen(str(tmp_path / f"{name}.wav"), 10.0) for name in "ab")
    assert a.seconds == b.seconds == 90
    assert a.digest != b.digest
    assert listen(str(tmp_path / "a.wav"), 60.0, whole=True).kind == "long", "as a training by windows says"
    assert listen(BytesIO((tmp_path / "a.wav").read_bytes()), 10.0) == a
    part = listen(Part(str(tmp_path / "a.wav"), 30.0, 75.0), 10.0)
    assert (part.seconds, part.digest) == (45, listen(Part(str(tmp_path / "b.wav"), 30.0, 75.0), 10.0).digest)
    assert part.digest != listen(Part(str(tmp_path / "a.wav"), 30.0, 74.0), 10.0).digest


@pytest.mark.parametrize("level", [0.9, 0.97])
def test_a_loud_sound_is_not_called_clipped(level: float):
    wave = level * np.sin(np.arange(RATE) * 0.02)[:, None]
    assert not is_clipped(wave.astype(np.float32))
    assert is_clipped(np.clip(1.2 * wave, -1, 1).astype(np.float32))


def test_a_folder_of_any_task_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = tmp_path / "my birds, 2024"
    write_class_folders(root, ("finch", "owl"), sites=60)
    words = [str(root), "data.group_pattern='(site[0-9]+)_'"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "group: data.group_pattern=(site[0-9]+)_ in the file's name" in printed
    assert "60 groups" in printed, "five folds test them all"
    assert not {"player", "players", "rudiment", "rudiments"} & set(printed.replace(",", " ").split())
    [command] = [line for line in printed.splitlines() if "sousa_bench.train" in line]
    asked = [word for word in shlex.split(command)[4:] if not word.startswith(("peft=", "seed="))]
    assert {"model=efficientat", "weights=official", "model.variant=mn04"} <= set(asked)
    made = composed(asked).data
    assert (made.root, made.group_pattern, made.name) == (str(root), "(site[0-9]+)_", "folder")
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["understood"]["layout"] == "class folders"
    assert sum(row["groups"] for row in found["splits"]) == 60
    assert [row["clips_a_group"] for row in found["splits"]] == [[2, 2]] * 3
    assert [row["class"] for row in found["classes"]] == ["finch", "owl"]
    assert found["sounds"]["heard"] == 120
    assert main([*words, "--json", "--no-listen"]) == 0
    assert json.loads(capsys.readouterr().out)["sounds"] is None


def test_folds_that_are_given_are_all_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = tmp_path / "folds"
    write_class_folders(root, ("finch", "owl"), sites=8)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.wav"))
    table = pd.DataFrame({"file_name": files, "label": [name.partition("/")[0] for name in files]})
    table["site"] = [name.partition("/")[2].partition("_")[0] for name in files]
    table["fold"] = table["site"].str.removeprefix("site").astype(int) // 2 + 1
    table.to_csv(root / "metadata.csv", index=False)
    assert main([str(root), "data.columns.group=site"]) == 0
    printed = capsys.readouterr().out
    assert "no interval: 2 sites" in printed
    assert "data.fold=1/4,2/4,3/4,4/4 tests all 8 sites" in printed
    assert printed.rstrip().endswith("data.columns.group=site data.fold=1/4,2/4,3/4,4/4")


def test_a_test_of_few_groups_is_followed_by_folds_of_all(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = tmp_path / "birds"
    write_class_folders(root, ("finch", "owl"), sites=12)
    words = [str(root), "data.group_pattern=(site[0-9]+)_"]
    assert main([*words, "data.resplit=true"]) == 0
    printed = capsys.readouterr().out
    folds = "data.fold=1/5,2/5,3/5,4/5,5/5"
    assert "(12 groups: site0, site1, site10, …)" in printed
    assert f"{folds} tests all 12 groups" in " ".join(printed.split())
    assert "in folds that test every group:" in printed
    assert printed.rstrip().endswith(folds)
    assert "data.resplit" not in printed.splitlines()[-1]


def test_several_labels_are_counted_by_class(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = tmp_path / "mixed"
    write_class_folders(root, ("a",), sites=18)
    labels = ["owl,finch", "owl", "finch"] * 6
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 9
    files = [f"a/site{i}_{i}.wav" for i in range(18)]
    pd.DataFrame({"file_name": files, "labels": labels, "split": splits}).to_csv(root / "metadata.csv", index=False)
    assert main([str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [[row["train"], row["val"], row["test"]] for row in found["classes"]] == [[4, 2, 6]] * 2
    assert [row["classes"] for row in found["splits"]] == [2, 2, 2]
    assert "mAP" in found["why_no_test"]


def test_real_recordings_split_by_take_share_their_speakers(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    digits = Path(__file__).parents[3] / "shared" / "spoken_digits"
    if not (digits / "takes.csv").is_file():
        pytest.skip(f"no spoken digits in {digits}")
    table = pd.read_csv(digits / "takes.csv").query("take < 3")
    root = tmp_path / "digits"
    (root / "recordings").mkdir(parents=True)
    for name in table["file_name"]:
        shutil.copy(digits / name, root / name)
    splits = table["take"].map({0: "test", 1: "val", 2: "train"})
    table.assign(split=splits).to_csv(root / "metadata.csv", index=False)
    assert main([str(root)]) == 1
    printed = capsys.readouterr().out
    assert "error: 6 speakers with clips in both train and test (george, jackson, lucas, …)" in printed
    assert "data.resplit=true splits by speaker" in printed
    assert main([str(root), "data.resplit=true"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no interval: 1 speaker, and below 8" in printed
    assert "hold 6 speakers, so no number of folds gives an interval: more speakers are needed" in printed
    assert "data.fold=" not in printed


def test_wrong_folders_are_one_message(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    write_class_folders(tmp_path / "one" / "class", ("owl",))
    write_class_folders(tmp_path / "two", ("owl", "finch"))

    def check(words: list[str], message: str, code: int) -> None:
        assert main(words) == code
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert message in line

    check_each(
        [
            ([str(tmp_path / "none")], "there is no such folder", 1),
            ([str(tmp_path / "one")], "", 1),
            ([str(tmp_path / "two"), "data.classes=[owl,wren]"], "'finch'", 2),
            ([str(tmp_path / "one"), str(tmp_path / "two")], "one folder", 2),
            ([str(tmp_path / "two"), "--page", "/dev/null/page.html"], "--page /dev/null/page.html", 1),
        ],
        check,
    )


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_plays_sounds_and_runs_nothing(tmp_path: Path, chromium: str):
    playwright = pytest.importorskip("playwright.sync_api")
    root = tmp_path / "<img src=x onerror=alert(1)>"
    hostile = "<script>window.hacked = 1<"
    write_class_folders(root, (hostile, "owl"), sites=12)
    sf.write(root / "owl" / "site0_loud.wav", np.clip(tone(99, level=3), -1, 1), RATE)
    page = tmp_path / "pages" / "data.html"
    assert main([str(root), "--page", str(page)]) == 0
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened, said, requests = browser.new_page(), [], []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: requests.append(request.url))
        opened.goto(page.as_uri())
        assert opened.locator("audio").count() == 7, "three clips of either class, and the clipped one"
        assert "clipped" in opened.locator("#listen figcaption").first.inner_text()
        assert opened.evaluate(PLAYED) == pytest.approx(0.3, abs=0.01)
        assert opened.evaluate("[...document.images].every(image => image.naturalWidth > 10)")
        assert hostile in opened.inner_text("main")
        assert opened.evaluate("window.hacked") is None
        assert opened.locator("script").count() == 0
        assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
        assert said == []
        browser.close()
