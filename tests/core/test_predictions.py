"""What stands out in a run's predictions is said; what doesn't is not."""

import numpy as np

from sousa_bench.results.predictions import outcome_warnings

NAMES = [f"class {i}" for i in range(10)]
LABELS = np.tile(np.arange(10), 10)


def noted(predicted, **facts):
    logits = np.eye(10, dtype=np.float32)[predicted]
    return outcome_warnings(logits, LABELS, NAMES, **{"partial": False, "random_weights": False, **facts})


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
