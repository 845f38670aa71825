"""What players do to a line of notation."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sousa_bench.data.rudiments import RUDIMENTS
from sousa_bench.data.synthetic.notation import RHYTHMS, entry
from sousa_bench.data.synthetic.performance import LEAD_IN_MS, TIERS, Player, make_player, perform
from tests.cases import check_each

MACHINE = Player(
    "m", 0, "professional", "right", jitter_ms=0, drift=0, velocity_sd=0, accent=1, lead_scale=1, lead_sd=0,
    second_late=0, loudness=0, bounce_ms=20,
)  # fmt: skip


def play(slug: str, player: Player = MACHINE, bpm: float = 120, rhythm: str = "even", seed: int = 0) -> np.ndarray:
    return perform(slug, bpm, player, rhythm, np.random.default_rng(seed)).strokes


def test_a_perfect_player_plays_what_is_written() -> None:
    def check(slug: str, rhythm: str) -> None:
        strokes = play(slug, rhythm=rhythm)
        main = strokes[~strokes["is_grace_note"]]
        assert main["actual_time_ms"] == pytest.approx(main["intended_time_ms"])
        assert main["intended_time_ms"][0] >= LEAD_IN_MS["target"][0]
        assert main["hand"][0] == entry(slug, rhythm).notes[0].hand
        accents = main[main["is_accent"]]
        assert (accents["stroke_type"] == "accent").all()

    check_each(itertools.product(RUDIMENTS, RHYTHMS), check)


@pytest.mark.parametrize(("slug", "leads"), [("flam", [30.0]), ("drag", [43.0, 15.0]), ("flamacue", [30.0])])
def test_grace_notes_sound_before_their_stroke(slug: str, leads: list[float]) -> None:
    strokes = play(slug, bpm=90)
    graces = strokes[strokes["stroke_type"] == "grace"]
    parents = strokes[graces["parent_stroke_index"].astype(int)]
    lead = parents["actual_time_ms"] - graces["actual_time_ms"]
    assert lead == pytest.approx(np.tile(leads, len(lead) // len(leads)))
    assert lead == pytest.approx(graces["flam_spacing_ms"])
    assert (graces["hand"] != parents["hand"]).all()
    assert (graces["actual_velocity"] < parents["actual_velocity"]).all()


def test_buzz_strokes_bounce() -> None:
    strokes = play("multiple_bounce_roll")
    main = strokes[~strokes["is_grace_note"]]
    assert main["buzz_count"].min() >= 4
    assert len(strokes) == main["buzz_count"].sum()


def test_the_weak_hand_is_softer_and_accents_are_louder() -> None:
    strokes = play("single_paradiddle", dataclasses.replace(MACHINE, weak_hand=12.0), bpm=60)
    taps = strokes[strokes["stroke_type"] == "tap"]
    right, left = (taps["actual_velocity"][taps["hand"] == hand].mean() for hand in "RL")
    assert 7 < right - left < 17
    assert strokes["actual_velocity"][strokes["is_accent"]].min() > taps["actual_velocity"].max()


def test_tiers_order_the_errors() -> None:
    spread = []
    for tier in TIERS:
        players = [player for player in (make_player(3, "target", n) for n in range(60)) if player.tier == tier]
        errors = []
        for number, player in enumerate(players):
            strokes = play("single_stroke_roll", player, bpm=100, seed=number)
            errors.append(np.std(strokes["actual_time_ms"] - strokes["intended_time_ms"]))
        spread.append(np.mean(errors))
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 4 * spread[3]


def test_source_players_spread_as_real_ones(sample: Path) -> None:
    """Of each tier in the real sample: timing errors, accents, hands and grace notes, within a quarter."""
    labels = sample / "generator" / "labels"
    strokes = pd.read_parquet(labels / "strokes.parquet")
    facts = pd.read_parquet(labels / "samples.parquet")[["sample_id", "skill_tier", "dominant_hand"]]
    strokes = strokes.merge(facts, on="sample_id")
    cast = [make_player(0, "source", number) for number in range(120)]
    measures = (timing_spread, fast_timing_spread, accent_spread, weak_accents, weak_taps, grace_level, grace_share)
    for tier, real in strokes.groupby("skill_tier"):
        played = []
        for player in (player for player in cast if player.tier == tier):
            slug = RUDIMENTS[player.number % len(RUDIMENTS)]
            one = pd.DataFrame(perform(slug, 140, player, "sousa", np.random.default_rng(player.number)).strokes)
            played.append(one.assign(sample_id=player.number, dominant_hand=player.dominant_hand))
        for measure in measures:
            assert measure(pd.concat(played)) == pytest.approx(measure(real), rel=0.25), (tier, measure.__name__)


def test_source_clips_begin_at_any_time() -> None:
    """So that no network learns when the first beat comes."""
    player = dataclasses.replace(MACHINE, lead_in_ms=LEAD_IN_MS["source"])
    begins = [play("single_stroke_roll", player, seed=seed)[0]["actual_time_ms"] for seed in range(40)]
    assert 0 <= min(begins) < 30
    assert 210 < max(begins) <= 240
    assert {play("single_stroke_roll", seed=seed)[0]["actual_time_ms"] for seed in range(9)} == {120}


@pytest.mark.parametrize(("rhythm", "leads"), [("even", "L"), ("notated", "L"), ("sousa", "R")])
def test_who_leads(rhythm: str, leads: str) -> None:
    """A left-handed player's left hand, but in SOUSA's rhythm the right, which is his softer one."""
    strokes = play("single_stroke_roll", dataclasses.replace(MACHINE, dominant_hand="left", weak_share=0.3), 60, rhythm)
    assert strokes["hand"][0] == leads
    soft, strong = (strokes["actual_velocity"][strokes["hand"] == hand].mean() for hand in "RL")
    assert soft == pytest.approx(0.7 * strong, abs=4)


def test_strokes_of_source_players_change_places_and_come_after_the_beginning() -> None:
    cast = [player for player in (make_player(0, "source", n) for n in range(60)) if player.tier == "beginner"]
    swapped, strokes = 0, 0
    for number, player in enumerate(cast):
        times = play("flam_paradiddle", player, 170, "sousa", number)["actual_time_ms"]
        assert times.min() >= 0
        swapped += int((np.diff(times) < 0).sum())
        strokes += len(times)
    assert 0.03 < swapped / strokes < 0.2


def timing_spread(strokes: pd.DataFrame) -> float:
    """Standard deviation of a clip's timing errors, ms: the median clip."""
    main = strokes[~strokes["is_grace_note"].astype(bool)]
    errors = main["actual_time_ms"] - main["intended_time_ms"]
    return float(errors.groupby(main["sample_id"]).std().median())


def fast_timing_spread(strokes: pd.DataFrame) -> float:
    """The same between strokes that are meant to be less than 130 ms apart."""
    main = strokes[~strokes["is_grace_note"].astype(bool)]
    fast = main.groupby("sample_id")["intended_time_ms"].transform(lambda times: times.diff().median()) < 130
    return timing_spread(main[fast])


def hands(strokes: pd.DataFrame, kind: str) -> float:
    """Mean velocity of the weak hand's strokes of a kind relative to the strong hand's."""
    some = strokes[strokes["stroke_type"] == kind]
    strong = (some["hand"] == "R") == (some["dominant_hand"] == "right")
    return float(some[~strong]["actual_velocity"].mean() / some[strong]["actual_velocity"].mean())


def weak_accents(strokes: pd.DataFrame) -> float:
    return hands(strokes, "accent")


def weak_taps(strokes: pd.DataFrame) -> float:
    return hands(strokes, "tap")


def grace_share(strokes: pd.DataFrame) -> float:
    """Velocity of grace notes relative to their strokes as played: the median."""
    place = strokes.set_index(["sample_id", "index"])["actual_velocity"]
    graces = strokes[strokes["stroke_type"] == "grace"]
    parents = place.loc[list(zip(graces["sample_id"], graces["parent_stroke_index"].astype(int), strict=True))]
    return float(np.median(graces["actual_velocity"].to_numpy() / parents.to_numpy()))


def accent_spread(strokes: pd.DataFrame) -> float:
    accents = strokes[strokes["is_accent"].astype(bool)]
    return float(accents.groupby("sample_id")["actual_velocity"].std().median())


def grace_level(strokes: pd.DataFrame) -> float:
    return float(strokes.loc[strokes["stroke_type"] == "grace", "actual_velocity"].mean())


def test_clips_last_about_four_seconds() -> None:
    def check(slug: str, bpm: int) -> None:
        performance = perform(slug, bpm, make_player(0, "target", 2), "even", np.random.default_rng(bpm))
        assert 2500 < performance.duration_ms < 6500
        times = performance.strokes["actual_time_ms"]
        assert times.min() >= 0

    check_each(itertools.product(RUDIMENTS, (60, 109, 180)), check)
