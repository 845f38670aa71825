"""The tables on disk: CSV for people and spreadsheets, Parquet with its types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from sousa_bench.analysis.columns import in_the_words_of
from sousa_bench.analysis.order import TIE_LOSS
from sousa_bench.analysis.stats.augmentation_effect import augmentation_impact
from sousa_bench.analysis.stats.data_sets import data_set_verdicts
from sousa_bench.analysis.study import Study
from sousa_bench.errors import UserError
from sousa_bench.system.files import replaced

FORMULA_STARTS = pa.array(["=", "+", "-", "@", "\t", "\r"])


def write_tables(study: Study, folder: Path) -> None:
    """Write ``comparison_table.csv`` and ``.parquet``, and a CSV for each table of the statistics.

    Those are ``comparisons`` and ``combinations``, and where they have rows ``effects``, ``augmentation``,
    ``data_sets``, ``models`` and ``misheard_clips``. In a CSV a text that a spreadsheet would run as a formula gets an
    apostrophe before it.
    """
    table = in_the_words_of(study.task, study.table)
    table["augmentation"] = table["augmentation"].astype("boolean")
    for key in table.columns:
        if table[key].dtype == object and table[key].isna().all():
            table[key] = table[key].astype("string")
    content = pa.Table.from_pandas(table, preserve_index=False)
    with _written(folder / "comparison_table.parquet") as path:
        pq.write_table(content, path, compression="zstd")
    _write_csv(content, folder / "comparison_table.csv")
    statistics = {
        "comparisons": study.pairs,
        "combinations": _combinations(study),
        "effects": _effects(study),
        "augmentation": augmentation_impact(study).table.drop(columns=["with_rows", "without_rows"], errors="ignore"),
        "data_sets": _data_sets(study),
        "models": study.model_sizes,
        "misheard_clips": study.misheard.table.drop(columns="clip_set", errors="ignore"),
    }
    for name, frame in statistics.items():
        path = folder / f"{name}.csv"
        if len(frame.columns):
            _write_csv(pa.Table.from_pandas(in_the_words_of(study.task, frame), preserve_index=False), path)
        else:
            path.unlink(missing_ok=True)  # an earlier analysis may have had some


def _effects(study: Study) -> pd.DataFrame:
    """A row an effect of each cohort."""
    tables = [found.table.assign(cohort=cohort) for cohort, found in study.effects.items() if len(found.table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _data_sets(study: Study) -> pd.DataFrame:
    """The method of the best mean rank against each other one, on each data set and over them."""
    tables = [item.chances.assign(kind=item.kind) for item in data_set_verdicts(study)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _combinations(study: Study) -> pd.DataFrame:
    """A row a combination: plain values, with the ids of its runs."""
    frame = study.combinations.drop(columns=["rows", "shared_clips", TIE_LOSS])
    names = study.table["experiment_id"]
    frame["experiment_ids"] = [" ".join(str(names[row]) for row in rows) for rows in study.combinations["rows"]]
    frame["augmentation"] = frame["augmentation"].astype("boolean")
    return frame


def _write_csv(content: pa.Table, path: Path) -> None:
    for number, field in enumerate(content.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            values = content.column(number)
            formulas = pc.is_in(pc.utf8_slice_codeunits(values, 0, 1), FORMULA_STARTS)
            if pc.any(formulas).as_py():
                quote, nothing = (pa.scalar(text, values.type) for text in ("'", ""))
                safe = pc.if_else(formulas, pc.binary_join_element_wise(quote, values, nothing), values)
                content = content.set_column(number, field.name, safe)
    with _written(path) as draft:
        pa_csv.write_csv(content, draft)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with _written(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """As ``replaced``, with a message for who has no right to write there."""
    try:
        with replaced(path) as draft:
            yield draft
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}); choose another --output-dir") from error
