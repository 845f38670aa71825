"""The class list against facts written down independently of the module."""

import subprocess
import sys

import pytest

from sousa_bench.data.rudiments import ALIASES, DISPLAY, FAMILIES, INDEX, RUDIMENTS, canonical, family_members, label
from sousa_bench.errors import UserError


def test_forty_classes_in_alphabetical_order() -> None:
    assert len(RUDIMENTS) == len(set(RUDIMENTS)) == 40
    assert list(RUDIMENTS) == sorted(RUDIMENTS)
    assert RUDIMENTS[0] == "double_drag_tap"
    assert RUDIMENTS[-1] == "triple_stroke_roll"
    assert set(DISPLAY) == set(RUDIMENTS) == set(FAMILIES) == set(INDEX)


@pytest.mark.parametrize(("family", "count"), [("rolls", 15), ("diddles", 4), ("flams", 11), ("drags", 10)])
def test_families_have_the_sizes_of_the_pas_sheet(family: str, count: int) -> None:
    assert len(family_members(family)) == count


def test_unknown_family_is_an_error() -> None:
    with pytest.raises(UserError, match="rolls, diddles, flams, drags"):
        family_members("ruffs")


@pytest.mark.parametrize(
    ("spelling", "slug"),
    [
        ("single_paradiddle", "single_paradiddle"),
        ("single-paradiddle", "single_paradiddle"),
        ("Single Paradiddle-Diddle", "paradiddle_diddle"),
        ("single_paradiddle_diddle", "paradiddle_diddle"),
        ("paradiddle-diddle", "paradiddle_diddle"),
        ("half_drag", "drag"),
        ("Drag Paradiddle #2", "drag_paradiddle_2"),
        ("lesson-25", "lesson_25"),
        ("17-stroke-roll", "seventeen_stroke_roll"),
        ("flam-paradiddle-diddle", "flam_paradiddle_diddle"),
    ],
)
def test_spellings(spelling: str, slug: str) -> None:
    assert canonical(spelling) == slug
    assert RUDIMENTS[label(spelling)] == slug


def test_every_alias_leads_to_a_class_and_hides_none() -> None:
    assert set(ALIASES.values()) <= set(RUDIMENTS)
    assert not set(ALIASES) & set(RUDIMENTS)


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'single_paradidle'.*single_paradiddle"):
        canonical("single_paradidle")


def test_a_far_name_gets_the_list() -> None:
    with pytest.raises(UserError, match=r"the 40 known ones are: double_drag_tap"):
        canonical("waltz")


def test_import_is_light() -> None:
    code = "import sys, sousa_bench.data.rudiments; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
