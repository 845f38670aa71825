"""Every model under the methods of the comparison: train, export, and every test clip again under onnxruntime."""

from __future__ import annotations

import json

import pytest

from sousa_bench.export import __main__ as export
from tests.export.test_package import assert_same_predictions

pytestmark = pytest.mark.slow
MODELS = ("ast", "htsat", "beats", "efficientat")
METHODS = ("lora", "adalora", "ia3", "full", "head")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_the_package_gives_the_runs_test_predictions(finish, model, method, tmp_path):
    run = finish(model, method)
    assert export.main([str(run.folder), str(tmp_path / "package")]) == 0
    assert_same_predictions(tmp_path / "package", run)
    assert json.loads((tmp_path / "package" / "config.json").read_text())["training"]["strategy"] == method
