"""Between equals one rule says which is the best, and every command has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sousa_bench.analysis import collect, compare
from sousa_bench.analysis.fresh_players import finalists
from sousa_bench.analysis.standings import standings
from sousa_bench.promote.__main__ import main as promote
from sousa_bench.results.finished import finished_run
from tests.analysis.synthetic import result, write_result

EQUALS = {  # validation accuracy, validation loss, trainable parameters
    "vera": (0.8, 0.4, 100),
    "ia3": (0.8, 0.4, 100),  # its name is first
    "adalora": (0.8, 0.4, 200),
    "dora": (0.8, 0.5, 50),
    "lora": (0.79, 0.1, 10),
}


@pytest.mark.parametrize("count", [5, 4, 3, 2])
def test_every_command_has_the_same_best_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int):
    """The first ``count`` of the worst: each time another part of the rule decides."""
    left = dict(list(EQUALS.items())[-count:])
    for strategy, (accuracy, loss, trainable) in left.items():
        made = result({"strategy": strategy, "seed": 1}, accuracy=0.75)
        made["metrics"] |= {"val_acc": accuracy, "best_val_loss": loss, "final_val_loss": 9 - loss}
        made["efficiency"]["trainable_params"] = trainable
        write_result(tmp_path / "runs" / strategy, made)
    best = {5: "ia3", 4: "ia3", 3: "adalora", 2: "dora"}[count]
    study = compare(collect([tmp_path]))
    (cohort,) = standings(study)
    assert cohort.leader["strategy"] == cohort.rows["strategy"].iloc[0] == best
    assert study.done["strategy"].iloc[0] == best
    assert finalists(study.combinations)[0]["strategy"] == best
    assert set(study.combinations.loc[study.combinations["leader"] == "both", "strategy"]) == {best}
    assert finished_run(tmp_path).result["config"]["strategy"] == best
    assert promote([str(tmp_path), "--top", "1", "--print"]) == 0
    assert f" peft={best} " in capsys.readouterr().out
