"""Every model and every method of the comparison: train, export, and every test clip again under onnxruntime."""

from __future__ import annotations

import json

import pytest

from sousa_bench.export import __main__ as export
from tests.export.test_package import assert_same_predictions

pytestmark = pytest.mark.slow
PAIRS = [
    ("ast", "lora"),
    ("ast", "head"),
    ("beats", "probe"),  # a head on all blocks
    ("htsat", "adalora"),
    ("htsat", "full"),
    ("beats", "ia3"),
    ("efficientat", "adalora"),  # convolutions that adapters were merged into
    ("efficientat", "full"),  # batch norms that were trained
    ("ast", "convpass"),  # modules that stay
]
"""Each model twice and each method once or more; EfficientAT with LoRA is the package of the default tests."""


@pytest.mark.parametrize(("model", "method"), PAIRS)
def test_the_package_gives_the_runs_test_predictions(finish, model, method, tmp_path):
    run = finish(model, method, *(["augmentation=off"] if method == "probe" else []))
    assert export.main([str(run.folder), str(tmp_path / "package")]) == 0
    assert_same_predictions(tmp_path / "package", run)
    assert json.loads((tmp_path / "package" / "config.json").read_text())["training"]["strategy"] == method
