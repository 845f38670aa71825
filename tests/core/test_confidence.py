"""When an answer is confident: the threshold that validation clips give, and what a result says of it."""

from __future__ import annotations

import numpy as np
import pytest

from sousa_bench.errors import UserError
from sousa_bench.results.confidence import LEAST, TARGET, Confidence, answers, confidence, fitted_threshold


def drawn(seed: int, count: int = 400, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and answers that are right about as often as these say, or `skill` of that."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 1, count)
    return scores, rng.uniform(size=count) < skill * scores


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_lowest_hundredth_that_keeps_what_is_promised(seed: int):
    scores, right = drawn(seed)
    threshold = fitted_threshold((scores, right))
    assert threshold is not None
    assert right[scores >= threshold].mean() >= TARGET
    assert (scores >= threshold).sum() >= LEAST
    lower = [step / 100 for step in range(101) if step / 100 < threshold - 1e-9]
    kept = [right[scores >= low].mean() for low in lower if (scores >= low).sum() > (scores >= threshold).sum()]
    assert len(kept) > 50
    assert max(kept) < TARGET


def test_it_is_raised_as_far_as_it_costs_no_answer():
    scores = np.linspace(0.637, 0.9, 30)
    assert fitted_threshold((scores, np.ones(30, dtype=bool))) == 0.63


@pytest.mark.parametrize(("count", "skill"), [(LEAST - 1, 1.0), (400, 0.5)])
def test_too_few_answers_and_answers_too_often_wrong_give_none(count: int, skill: float):
    scores, right = drawn(0, count, skill)
    right = right if skill < 1 else np.ones(count, dtype=bool)
    block = confidence((scores, right), (scores, right))
    assert block["threshold"] is None
    assert block["test"] == {"answers": count, "confident": 0, "precision": None}
    found = Confidence.of({"confidence": block}, "result.json")
    assert found == Confidence(None, TARGET)
    assert not found.holds(1.0)
    assert "No answer is confident" in found.text


def test_the_test_clips_choose_nothing():
    validation = drawn(1)
    blocks = [confidence(validation, drawn(seed)) for seed in (2, 3)]
    assert blocks[0]["threshold"] == blocks[1]["threshold"] == fitted_threshold(validation)
    assert blocks[0]["validation"] == blocks[1]["validation"]
    assert blocks[0]["test"] != blocks[1]["test"]
    scores, right = drawn(2)
    above = scores >= blocks[0]["threshold"]
    assert blocks[0]["test"] == {"answers": 400, "confident": above.sum(), "precision": right[above].mean()}


def test_of_several_labels_each_accepted_one_is_an_answer():
    probabilities = np.array([[0.9, 0.6, 0.1], [0.2, 0.5, 0.3]], dtype=np.float32)
    scores, right = answers(probabilities, np.array([[1, 0, 1], [1, 1, 1]]), several=True)
    assert scores == pytest.approx([0.9, 0.6])
    assert right.tolist() == [True, False]
    scores, right = answers(probabilities, np.array([0, 0]), several=False)
    assert scores == pytest.approx([0.9, 0.5])
    assert right.tolist() == [True, False]


@pytest.mark.parametrize(
    "block", [{"threshold": 2, "target": 0.9}, {"threshold": True, "target": 0.9}, {"threshold": 0.5}, [0.5], "high"]
)
def test_an_odd_block_of_a_foreign_file_is_one_message(block):
    with pytest.raises(UserError, match=r"result\.json: its block confidence"):
        Confidence.of({"confidence": block}, "result.json")
    assert Confidence.of({}, "result.json") is None
