"""What an audit finds: names of released cells, attacks, metrics and columns, and the values."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from scld.io.text import with_interval

SYNTHETIC, COPIES, SAME, OTHER = "synthetic", "copies", "same donors", "other donors"  # released
RELEASED = {
    SYNTHETIC: "the cells of the audited generator",
    COPIES: "training cells, sampled with replacement: the attack must succeed",
    SAME: "real cells of the training donors, and their other cells are attacked",
    OTHER: "real cells of donors that are not attacked: the attack must fail",
}
COPULA, DOMIAS, DISTANCE, LIKELIHOOD = "copula", "DOMIAS", "distance", "likelihood"  # attacks
ATTACKS = {
    COPULA: "Mahalanobis distance in a Gaussian copula, auxiliary against released cells",
    DOMIAS: "kernel density of released cells, relative to that of auxiliary cells",
    DISTANCE: "distance to the nearest released cell",
    LIKELIHOOD: "likelihood of a cell under the fitted model, relative to auxiliary means",
}
AUC, C2ST = "auc", "c2st"  # metrics, and the true-positive rates that follow
RATES = {"tpr_10": 0.1, "tpr_1": 0.01}  # metric -> false-positive rate that is allowed
BASELINE = "baseline"  # of the two-sample test: real cells against real cells
KEYS = ("released", "attack", "cells_per_donor", "metric")
COLUMNS = (*KEYS, "value", "lower", "upper", "replicates")


@dataclass(frozen=True)
class Results:
    """The table of an audit, and what it belongs to: see `PrivacyAudit`."""

    table: pd.DataFrame
    notes: tuple[str, ...]
    donors: int
    replicates: int
    seed: int

    def values(self, **where: object) -> pd.DataFrame:
        """The rows with these values."""
        rows = self.table
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows

    def value(self, released: str, attack: str, cells_per_donor: int, metric: str = AUC) -> float:
        """One value of the table; nan where it is missing."""
        where = dict(zip(KEYS, (released, attack, cells_per_donor, metric), strict=True))
        found = self.values(**where)["value"]
        return float(found.iloc[0]) if len(found) else float("nan")

    def shown(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the summary."""
        controls = [name for name in RELEASED if name != SYNTHETIC]
        rates = [f"TPR at {rate:.0%}" for rate in RATES.values()]
        columns = ["attack", "cells per donor", SYNTHETIC, *rates, *controls]
        metrics = [(SYNTHETIC, metric) for metric in (AUC, *RATES)]
        metrics += [(name, AUC) for name in controls]
        rows = self.table[self.table["metric"] == AUC]
        keys = rows[["attack", "cells_per_donor"]].drop_duplicates().to_numpy(object).tolist()
        return columns, [
            [attack, f"{cells:,}", *(self._text(name, attack, cells, m) for name, m in metrics)]
            for attack, cells in keys
        ]

    def _text(self, released: str, attack: str, cells: int, metric: str) -> str:
        where = dict(zip(KEYS, (released, attack, cells, metric), strict=True))
        rows = self.values(**where).to_dict("records")
        return with_interval(rows[0]) if rows else ""

    def fidelity(self) -> str:
        """One line on how well a classifier distinguishes synthetic from training cells."""
        names = (SYNTHETIC, BASELINE)
        synthetic, real = (self._text(name, "", 0, C2ST) for name in names)
        return f"Fidelity: C2ST AUC, largest of three classifiers, {synthetic}; real cells {real}"
