"""The section on distillation: each student beside its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sousa_bench.analysis import columns as col
from sousa_bench.analysis.columns import Column
from sousa_bench.analysis.report.blocks import MAX_LISTED, Block, Heading, Options, Table, Text
from sousa_bench.analysis.study import Study
from sousa_bench.system.text_table import scaled

PER_RUN = ("lineage.teacher", "lineage.teacher_score", "lineage.teacher_params", "lineage.teacher_clips")


def with_teachers(study: Study, options: Options) -> list[Block]:
    """A row for each student and teacher: what both score on the same test clips, and their sizes."""
    if not set(PER_RUN) <= set(study.table):
        return []
    rows = [pair for row in study.combinations.to_dict("records") for pair in _pairs(study, row)]
    if not rows:
        return []
    text = (
        "A student learnt its teacher's answers to the training clips, at teacher.weight=1 without their labels. The "
        "teacher's score stands here only where it was tested on the student's test clips; what the student gained by "
        "it, the comparison with the same training without a teacher shows (teacher.run=null,FOLDER)."
    )
    score = study.task.score
    shown_columns = [
        *([col.COHORT] if study.cohorts else []),
        Column("combination", "student", text=True),
        Column("test_acc", f"student's test {score}"),
        Column("params", "student's parameters", lambda row: _size(row["params"])),
        Column("teacher", "teacher", text=True),
        Column("teacher_score", f"teacher's test {score}"),
        Column("teacher_params", "teacher's parameters", lambda row: _size(row["teacher_params"])),
    ]
    return [Heading("Students and teachers", short="Teachers"), Text([text]), Table(shown_columns, rows[:MAX_LISTED])]


def _size(value: Any) -> str:
    return col.ABSENT if col.is_absent(value) else scaled(value)


def _pairs(study: Study, row: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """A combination beside each teacher that its completed runs had."""
    runs = study.table.iloc[list(row["rows"])]
    runs = runs[runs["lineage.teacher"].notna()]
    made = []
    for (teacher, score, params, clips), own in runs.groupby(list(PER_RUN), dropna=False, sort=False):
        own_clips = own.get("data.test_fingerprint")
        same = own_clips is not None and (own_clips == clips).all()
        made.append(
            {
                "cohort": row["cohort"],
                "combination": row["combination"],
                "test_acc": own["test_acc"].mean(),
                "params": own["total_params"].iloc[0],
                "teacher": teacher,
                "teacher_score": score if same else None,
                "teacher_params": params,
            }
        )
    return made
