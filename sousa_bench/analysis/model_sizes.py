"""What each network reaches, by its pretraining, family and size."""

from __future__ import annotations

import pandas as pd

from sousa_bench.analysis.columns import is_absent
from sousa_bench.analysis.order import best_first
from sousa_bench.analysis.study import Study

PARAMETERS, MULTIPLY_ADDS = "network.parameters", "network.multiply_adds"
PRETRAINING, VARIANT = "weights.pretraining", "network.variant"
NETWORK = [PRETRAINING, "model", VARIANT, PARAMETERS, MULTIPLY_ADDS]
COLUMNS = [
    "cohort", "pretraining", "model", "variant", "parameters", "multiply_adds", "combination", "test_acc", "acc_low",
    "acc_high",
]  # fmt: skip


def model_sizes(study: Study) -> pd.DataFrame:
    """A row a network of each cohort that holds networks of several sizes, with its best combination.

    The rows of a cohort stand by pretraining, then model, then multiply-adds. Runs whose results don't say what their
    networks cost are left out.

    Returns:
        ``cohort``, ``pretraining`` (``unknown`` where nobody says it), ``model``, ``variant``, ``parameters``,
        ``multiply_adds``, ``combination``, ``test_acc``, ``acc_low``, ``acc_high``. Without a column where no cohort
        holds several sizes.
    """
    frame = study.combinations[study.combinations["test_acc"].notna()]
    if any(key not in study.table for key in NETWORK):
        return pd.DataFrame()
    own = study.table.loc[[rows[0] for rows in frame["rows"]], NETWORK].set_axis(frame.index)
    for key in (PARAMETERS, MULTIPLY_ADDS):
        own[key] = pd.to_numeric(own[key], errors="coerce")
    for key in (PRETRAINING, VARIANT):
        own[key] = own[key].map(lambda value: "unknown" if is_absent(value) else str(value)[:60])
    own = own[(own[PARAMETERS] > 0) & (own[MULTIPLY_ADDS] > 0)]
    found = []
    for cohort, rows in frame.loc[own.index].groupby("cohort"):
        networks = own.loc[rows.index].groupby(NETWORK)
        if own.loc[rows.index, MULTIPLY_ADDS].nunique() < 2:
            continue
        for facts, members in networks:
            best = best_first(rows.loc[members.index], "test_acc").iloc[0]
            found.append([cohort, *facts, *best[["combination", "test_acc", "acc_low", "acc_high"]]])
    made = pd.DataFrame(found, columns=COLUMNS) if found else pd.DataFrame()
    return made.sort_values(["cohort", "pretraining", "model", "multiply_adds"], kind="stable") if found else made
