"""The results of one evaluation: the table, the notes, and the data for plots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from scld.evaluation.cells import OVERALL, View
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.evaluation.metrics.genes import gene_moments
from scld.evaluation.protocol import Evaluation

MOST_PLOTTED = 6  # datasets with plots: each takes about half a megabyte of the HTML report


@dataclass(frozen=True, repr=False, eq=False)
class Results:
    """The results of one evaluation.

    Parameters
    ----------
    table
        One row per dataset, group and metric; see `Report`.
    notes
        What was left out and why, one sentence each.
    label
        The obs column of cell types.
    types
        Name of each code.
    gene_names
        Genes that were scored.
    evaluation
        Scores and cells of the protocol.
    seed
        The seed.
    """

    table: pd.DataFrame
    notes: list[str]
    label: str | None
    types: list[str]
    gene_names: list[str]
    evaluation: Evaluation
    seed: int

    @property
    def datasets(self) -> list[str]:
        """The names of the synthetic datasets."""
        others = {BASELINE, *CONTROLS}
        return [name for name in self.table["dataset"].unique() if name not in others]

    @property
    def plotted(self) -> list[str]:
        """The datasets with plots."""
        return self.datasets[:MOST_PLOTTED]

    @property
    def controls(self) -> list[str]:
        """The negative controls that were scored."""
        scored = set(self.table["dataset"])
        return [name for name in CONTROLS if name in scored]

    @property
    def sizes(self) -> dict[str, int]:
        """Type -> number of cells of each dataset that were scored."""
        return {self.types[code]: n for code, n in self.evaluation.sizes.items()}

    @property
    def real(self) -> View:
        """The real cells of the first replicate."""
        assert self.evaluation.real is not None
        return self.evaluation.real

    def view(self, name: str) -> View:
        """The cells of a dataset in the first replicate."""
        return self.evaluation.shown[name].view

    def value(self, name: str, metric: str, group: str = OVERALL) -> float:
        """One value of the table; nan where it was left out."""
        table = self.table
        of_dataset = table[(table["dataset"] == name) & (table["group"] == group)]
        found = of_dataset["value"][of_dataset["metric"] == metric]
        return float(found.iloc[0]) if len(found) else float("nan")

    @cached_property
    def genes(self) -> pd.DataFrame:
        """Gene by gene, one row per dataset and gene.

        Mean, variance and detection rate in the dataset, and in real cells (``_real``).
        """
        of_real = gene_moments(self.real.cells.log)
        real = {f"{key}_real": moments for key, moments in of_real.items()}
        tables = []
        for name in [*self.datasets, BASELINE]:
            moments = gene_moments(self.view(name).cells.log)
            columns = {"dataset": name, "gene": self.gene_names, **moments, **real}
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)
