"""What stands out in a run's predictions is said; what doesn't is not."""

import numpy as np
import pytest
from scipy.stats import binomtest

from sousa_bench.results.predictions import outcome_warnings
from sousa_bench.task import Task

TASK = Task(tuple(f"class {i}" for i in range(10)), group="player")
LABELS = np.tile(np.arange(10), 10)


PLAYERS = np.repeat([f"player {i}" for i in range(10)], 10)


def noted(predicted, players=PLAYERS, labels=LABELS, **facts):
    logits = np.eye(10, dtype=np.float32)[predicted]
    return outcome_warnings(logits, labels, TASK, players, **{"partial": False, "random_weights": False, **facts})


def test_a_good_model_has_no_warning():
    assert noted(LABELS) == []


def test_one_class_for_all():
    messages = noted(np.full(100, 3))
    assert "class 3" in messages[0]
    assert "not above chance (10 of 100 clips" in messages[1]


def test_chance_with_random_weights_says_so():
    [message] = noted((LABELS + 1) % 10, random_weights=True)
    assert "0 of 100" in message
    assert message.endswith("which is what random weights give")


def test_partial_tests_are_marked():
    assert noted(LABELS, partial=True) == [
        "only 100 test clips were used (trainer.eval_batches): the metrics are no comparison"
    ]


def test_above_chance_is_about_players():
    """At chance in the mean, but for each player in another degree: clips taken for independent say too often that
    something was learnt."""
    rng, studies = np.random.default_rng(0), 300
    players = np.repeat(np.arange(12), 40)
    labels = np.tile(np.arange(10), 48)
    by_players, by_clips = 0, 0
    for _ in range(studies):
        right = rng.random(len(labels)) < rng.beta(1, 9, 12)[players]
        by_players += noted(np.where(right, labels, (labels + 1) % 10), players, labels) == []
        by_clips += binomtest(int(right.sum()), len(labels), 0.1, alternative="greater").pvalue <= 0.05
    assert by_players / studies <= 0.06
    assert by_clips / studies >= 0.2


def test_players_who_all_learnt_something_are_above_chance():
    rng = np.random.default_rng(0)
    found = [noted(np.where(rng.random(100) < 0.3, LABELS, (LABELS + 1) % 10)) for _ in range(50)]
    assert sum(messages == [] for messages in found) >= 48


def test_few_players_who_agree_by_luck_are_not_above_chance():
    right = np.isin(np.arange(100), [0, 10, 11, 12, 13, 14, 50, 61, 62, 63, 64, 65])  # 6 clips of 50, by each of two
    [message] = noted(np.where(right, LABELS, (LABELS + 1) % 10), np.repeat(["a", "b"], 50))
    assert "is not above chance (12 of 100 clips by 2 players; 0.1000" in message


def test_one_player_says_nothing_of_others():
    [message] = noted(LABELS, np.full(100, "a"))
    assert message.startswith("all 100 test clips are by one player")
    for split, said in (("val", "all 100 val clips"), ("all", "all 100 clips")):
        [message] = noted(LABELS, np.full(100, "a"), split=split)
        assert message.startswith(f"{said} are by one player: whether the ")


SEVERAL = Task(("low", "middle", "high"), several=True, noun="tone", group="speaker")


def noted_of_several(logits, labels, speakers, random_weights=False):
    words = {"partial": False, "random_weights": random_weights}
    return outcome_warnings(logits.astype(np.float32), labels.astype(np.int64), SEVERAL, speakers, **words)


@pytest.mark.parametrize("speakers", [3, 12])
def test_several_labels_at_chance_are_about_groups(speakers: int):
    """Each speaker has labels and voices of a kind, and the model hears the voices: alike by luck alone."""
    rng, studies = np.random.default_rng(0), 300
    group = np.repeat(np.arange(speakers), 20)
    passed = 0
    for _ in range(studies):
        labels = rng.random((len(group), 3)) < rng.beta(1, 2, (speakers, 3))[group]
        logits = rng.normal(size=(len(group), 3)) + rng.normal(size=(speakers, 3))[group]
        passed += noted_of_several(logits, labels, group) == []
    assert passed / studies <= 0.08


def test_several_labels_that_are_learnt_have_no_warning():
    rng, group = np.random.default_rng(0), np.repeat(np.arange(10), 10)
    labels = rng.random((100, 3)) < 0.3
    assert noted_of_several(labels + rng.normal(size=(100, 3)), labels, group) == []
    assert noted_of_several(labels * 50.0, labels, group) == []


def test_several_labels_at_chance_say_so():
    labels = np.random.default_rng(0).random((100, 3)) < 0.3
    [message] = noted_of_several(np.zeros((100, 3)), labels, np.repeat(np.arange(10), 10), random_weights=True)
    assert f"mean average precision {labels.mean():.4f} is not above chance (area under ROC 0.5000" in message
    assert "mean over 3 tones, p = 1.00; 100 clips by 10 speakers" in message
    assert message.endswith("which is what random weights give")


def test_several_labels_by_one_group_say_nothing_of_others():
    labels = np.random.default_rng(0).random((100, 3)) < 0.3
    assert noted_of_several(labels * 1.0, labels, np.full(100, "a")) == [
        "all 100 test clips are by one speaker: whether the mean average precision 1.0000 is more than luck can't be "
        "told for others"
    ]
