"""Each of the 40 rudiments against the PAS sheet, written down here a second time, by hand and in another form.

A row: sticking of the main strokes of one pass, numbers of the accented ones (from 1), numbers of the strokes with one
grace note (flam), of those with two (drag), and the hand that the next pass starts with.
"""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest

from sousa_bench.data.rudiments import FAMILIES, RUDIMENTS
from sousa_bench.data.synthetic.notation import RHYTHMS, SOUSA, TABLE, Rudiment, entry
from sousa_bench.errors import UserError
from tests.cases import check_each

PAS: dict[str, tuple[str, list[int], list[int], list[int], str]] = {
    "single_stroke_roll": ("RL", [], [], [], "R"),
    "single_stroke_four": ("RLRL", [1], [], [], "R"),
    "single_stroke_seven": ("RLRLRLR", [1], [], [], "L"),
    "multiple_bounce_roll": ("RL", [], [], [], "R"),
    "triple_stroke_roll": ("RRR", [1], [], [], "L"),
    "double_stroke_open_roll": ("RRLL", [], [], [], "R"),
    "five_stroke_roll": ("RRLLR", [5], [], [], "L"),
    "six_stroke_roll": ("RLLRRL", [1, 6], [], [], "R"),
    "seven_stroke_roll": ("RRLLRRL", [7], [], [], "R"),
    "nine_stroke_roll": ("RRLLRRLLR", [9], [], [], "L"),
    "ten_stroke_roll": ("RRLLRRLLRL", [9, 10], [], [], "R"),
    "eleven_stroke_roll": ("RRLLRRLLRRL", [11], [], [], "R"),
    "thirteen_stroke_roll": ("RRLLRRLLRRLLR", [13], [], [], "L"),
    "fifteen_stroke_roll": ("RRLLRRLLRRLLRRL", [15], [], [], "R"),
    "seventeen_stroke_roll": ("RRLLRRLLRRLLRRLLR", [17], [], [], "L"),
    "single_paradiddle": ("RLRR", [1], [], [], "L"),
    "double_paradiddle": ("RLRLRR", [1], [], [], "L"),
    "triple_paradiddle": ("RLRLRLRR", [1], [], [], "L"),
    "paradiddle_diddle": ("RLRRLL", [1], [], [], "R"),
    "flam": ("R", [1], [1], [], "L"),
    "flam_accent": ("RLR", [1], [1], [], "L"),
    "flam_tap": ("RR", [1], [1], [], "L"),
    "flamacue": ("RLRLR", [2], [1, 5], [], "L"),
    "flam_paradiddle": ("RLRR", [1], [1], [], "L"),
    "single_flammed_mill": ("RRLR", [1], [1], [], "L"),
    "flam_paradiddle_diddle": ("RLRRLL", [1], [1], [], "L"),
    "pataflafla": ("RLRL", [1, 4], [1, 4], [], "R"),
    "swiss_army_triplet": ("RRL", [1], [1], [], "R"),
    "inverted_flam_tap": ("RL", [1], [1], [], "L"),
    "flam_drag": ("RLLR", [1], [1], [], "L"),
    "drag": ("R", [1], [], [1], "L"),
    "single_drag_tap": ("RL", [2], [], [1], "L"),
    "double_drag_tap": ("RRL", [3], [], [1, 2], "L"),
    "lesson_25": ("RLR", [3], [], [1], "R"),
    "single_dragadiddle": ("RRLRR", [1], [], [], "L"),
    "drag_paradiddle_1": ("RRLRR", [1], [], [2], "L"),
    "drag_paradiddle_2": ("RRRLRR", [1], [], [2, 3], "L"),
    "single_ratamacue": ("RLRL", [4], [], [1], "L"),
    "double_ratamacue": ("RRLRL", [5], [], [1, 2], "L"),
    "triple_ratamacue": ("RRRLRL", [6], [], [1, 2, 3], "L"),
}
# Strokes of one SOUSA cycle, grace notes included, and its beats, from labels/strokes.parquet and samples.parquet of a
# right-handed player at 109 bpm: for the rudiments that the public generator writes as PAS does.
SOUSA_CYCLE = {
    "double_paradiddle": (12, 3.0),
    "double_ratamacue": (18, 3.0),
    "double_stroke_open_roll": (4, 1.0),
    "drag": (6, 1.0),
    "drag_paradiddle_1": (14, 3.5),
    "drag_paradiddle_2": (20, 5.0),
    "eleven_stroke_roll": (11, 3.0),
    "fifteen_stroke_roll": (15, 4.0),
    "five_stroke_roll": (5, 1.5),
    "flam": (4, 1.0),
    "flam_accent": (8, 2.0),
    "flam_paradiddle": (10, 2.5),
    "flam_paradiddle_diddle": (14, 2.0),
    "flam_tap": (6, 1.5),
    "nine_stroke_roll": (9, 2.5),
    "paradiddle_diddle": (12, 2.0),
    "seven_stroke_roll": (7, 2.0),
    "seventeen_stroke_roll": (17, 4.5),
    "single_drag_tap": (8, 2.0),
    "single_paradiddle": (8, 2.0),
    "single_ratamacue": (12, 2.0),
    "single_stroke_four": (4, 1.0),
    "single_stroke_roll": (8, 2.0),
    "single_stroke_seven": (7, 2.0),
    "six_stroke_roll": (6, 1.5),
    "swiss_army_triplet": (8, 2.0),
    "ten_stroke_roll": (10, 2.5),
    "thirteen_stroke_roll": (13, 3.5),
    "triple_paradiddle": (16, 4.0),
    "triple_ratamacue": (24, 4.0),
    "triple_stroke_roll": (6, 2.0),
}


def test_the_table_holds_the_forty_classes() -> None:
    assert set(TABLE) == set(RUDIMENTS) == set(PAS)


def test_sticking_accents_and_grace_notes_are_those_of_the_pas_sheet() -> None:
    def check(slug: str) -> None:
        sticking, accents, flams, drags, next_lead = PAS[slug]
        notes = TABLE[slug].notes
        assert "".join(note.hand for note in notes) == sticking
        assert [place for place, note in enumerate(notes, 1) if note.accent] == accents
        assert [place for place, note in enumerate(notes, 1) if len(note.graces) == 1] == flams
        assert [place for place, note in enumerate(notes, 1) if len(note.graces) == 2] == drags
        assert all(set(note.graces) <= {"l" if note.hand == "R" else "r"} for note in notes)
        assert TABLE[slug].pass_notes(1)[0].hand == next_lead

    check_each(RUDIMENTS, check)


def test_grace_notes_lead_by_sousas_milliseconds() -> None:
    def check(slug: str) -> None:
        _, _, flams, drags, _ = PAS[slug]
        for place, note in enumerate(TABLE[slug].notes, 1):
            expected = [30.0] if place in flams else [43.0, 15.0] if place in drags else []
            assert list(note.leads_ms) == expected

    check_each(RUDIMENTS, check)


def test_a_left_hand_lead_is_the_mirror_image() -> None:
    def check(slug: str) -> None:
        right, left = TABLE[slug].cycle(), TABLE[slug].cycle(left_lead=True)
        swap = {"R": "L", "L": "R"}
        assert [swap[note.hand] for note in right] == [note.hand for note in left]
        assert [note.accent for note in right] == [note.accent for note in left]

    check_each(RUDIMENTS, check)


def test_the_even_grid_is_sousas() -> None:
    def check(slug: str, symbols: int, beats: float) -> None:
        rudiment = TABLE[slug]
        assert sum(1 + len(note.graces) for note in rudiment.cycle()) == symbols
        onsets, length = rudiment.onsets("even")
        assert length * rudiment.passes == pytest.approx(beats)
        slot = beats / symbols
        assert all(math.isclose(onset / slot, round(onset / slot), abs_tol=1e-9) for onset in onsets)

    check_each(((slug, *cycle) for slug, cycle in SOUSA_CYCLE.items()), check)


def test_sousas_lines_are_its_labels(sample: Path) -> None:
    """Stroke by stroke: hands, grace notes, kinds, accents and times of all real clips; the double drag tap apart."""
    folder = sample / "generator" / "labels"
    strokes = pd.read_parquet(folder / "strokes.parquet").sort_values(["sample_id", "index"])
    clips = pd.read_parquet(folder / "samples.parquet").set_index("sample_id")
    bounces = strokes["is_grace_note"] & (strokes["stroke_type"] == "buzz")
    compared: dict[str, set[bool]] = {}
    for name, played in strokes[~bounces].groupby("sample_id"):
        slug, cycles = clips.loc[name, ["rudiment_slug", "num_cycles"]]
        if slug == "double_drag_tap":
            continue
        real, graces = [], ""
        for hand, kind, accent in zip(played["hand"], played["stroke_type"], played["is_accent"], strict=True):
            graces += hand.lower() if kind == "grace" else ""
            if kind != "grace":
                real.append((graces, hand, kind, accent))
                graces = ""
        rudiment = entry(slug, "sousa")
        onsets, length = rudiment.onsets("sousa")
        passes = range(cycles * rudiment.passes)
        notes = [note for number in passes for note in rudiment.pass_notes(number)]
        assert real == [(note.graces, note.hand, note.kind, note.accent) for note in notes], name
        main = played[played["stroke_type"] != "grace"]
        beats = main["intended_time_ms"] * clips.loc[name, "tempo_bpm"] / 60_000
        assert beats.to_numpy() == pytest.approx([number * length + onset for number in passes for onset in onsets])
        pas = [note for number in passes for note in TABLE[slug].pass_notes(number)]
        compared.setdefault(slug, set()).add(pas[: len(notes)] == notes)
    assert len(compared) == len(RUDIMENTS) - 1
    assert {slug for slug, same in compared.items() if same == {False}} == set(SOUSA) - {"double_drag_tap"}


def test_onsets_rise_within_the_pass() -> None:
    def check(slug: str, rhythm: str) -> None:
        onsets, length = entry(slug, rhythm).onsets(rhythm)
        assert list(onsets) == sorted(set(onsets))
        assert onsets[0] >= 0
        assert onsets[-1] < length <= 5

    check_each(itertools.product(RUDIMENTS, RHYTHMS), check)


def test_notated_rhythms_of_the_sheet() -> None:
    assert TABLE["five_stroke_roll"].onsets("notated") == ((0, 0.25, 0.5, 0.75, 1.0), 1.5)
    assert TABLE["flam_accent"].onsets("notated")[0] == pytest.approx((0, 1 / 3, 2 / 3))
    assert TABLE["flam_drag"].onsets("notated")[0] == pytest.approx((0, 1 / 3, 1 / 2, 2 / 3))
    assert TABLE["single_stroke_seven"].onsets("notated")[0] == pytest.approx([k / 6 for k in range(7)])


def test_diddles_and_buzzes() -> None:
    paradiddle = TABLE["single_paradiddle"].notes
    assert [note.diddle_position for note in paradiddle] == [None, None, 1, 2]
    assert {note.kind for note in TABLE["multiple_bounce_roll"].notes} == {"buzz"}
    others = [note.kind for slug in RUDIMENTS if slug != "multiple_bounce_roll" for note in TABLE[slug].notes]
    assert set(others) == {"accent", "diddle", "tap"}


def test_families_agree_with_the_notation() -> None:
    for slug, rudiment in TABLE.items():
        graces = {len(note.graces) for note in rudiment.notes}
        assert (1 in graces) == (FAMILIES[slug] == "flams")
        assert (2 in graces) == (FAMILIES[slug] == "drags" and slug != "single_dragadiddle")


def test_bad_notation_and_bad_rhythm_are_refused() -> None:
    with pytest.raises(UserError, match="'Rx'"):
        _ = Rudiment("Rx", TABLE["flam"].unit, TABLE["flam"].even, True, 1).notes
    with pytest.raises(UserError, match=r"'swung'.*'even', 'notated', 'sousa'"):
        TABLE["flam"].onsets("swung")
