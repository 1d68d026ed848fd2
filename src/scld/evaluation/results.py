"""The results of one evaluation: the table, the notes, and the data for plots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from scld.evaluation import gene_pairs
from scld.evaluation.cells import OVERALL, View
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.evaluation.metrics.genes import gene_moments
from scld.evaluation.protocol import Evaluation

MOST_WORST = 20  # pairs of gene and type that are listed for a dataset
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
    labels
        The obs columns of cell types and other labels.
    types
        Name of each code.
    gene_names
        Genes that were scored.
    evaluation
        Scores and cells of the protocol.
    seed
        The seed.
    about
        What was evaluated, when, by which version and with which settings, as text.
    """

    table: pd.DataFrame
    notes: list[str]
    labels: tuple[str, ...]
    types: list[str]
    gene_names: list[str]
    evaluation: Evaluation
    seed: int
    about: dict[str, str]

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

    @cached_property
    def type_genes(self) -> pd.DataFrame:
        """Every gene within each type, one row per dataset, type and gene.

        Of all test cells and all synthetic cells, in counts per 10,000 without a logarithm. Rows
        are types with at least 30 cells in both, and genes detected in at least 20 of these.
        ``identity``: whether it is one of the ten most abundant specific genes of the type;
        ``identity_of``: the type that it is one of. ``marker``: whether it is an identity gene, or
        one of the 50 genes of the type with the largest fold change. ``cells_real``, ``cells``:
        numbers of cells. ``mean_real``, ``mean``: real and synthetic mean. ``ratio``: synthetic to
        real, each plus 0.1. ``z``: their difference in standard errors. ``outside_real``,
        ``outside``, ``outside_ratio``, ``outside_z``: the same in the cells of all other types,
        weighted as in the real cells. ``variance_ratio``: the same of variances, and ``spread_z``
        of mean absolute deviations; nan below 50 cells with the gene. ``off``: ``level``,
        ``leak``, ``spread`` or empty; see `worst_genes`.
        """
        tables = [
            gene_pairs.gene_pairs(
                self.evaluation.reference,
                self.evaluation.test,
                self.evaluation.synthetic[name],
                self.types,
                self.gene_names,
            ).assign(dataset=name)
            for name in self.datasets
        ]
        table = pd.concat(tables, ignore_index=True)
        return table[["dataset", *table.columns.drop("dataset")]]

    @cached_property
    def worst_genes(self) -> pd.DataFrame:
        """The 20 rows of `type_genes` of each dataset that are furthest off; none if none is.

        ``level``: ``ratio`` is outside 1/1.15 to 1.15, and ``z`` beyond 5. ``leak``: the same of a
        marker in all other types, upwards. ``spread``: ``variance_ratio`` is outside 1/2 to 2, and
        ``spread_z`` beyond 5. For identity genes, 4 standard errors are enough. Identity genes
        come first, then the others, each by standard errors. Also the 5, 50 and 95% quantiles of
        the type's real (``q05_real``, ...) and synthetic cells (``q05``, ...).
        """
        table = self.type_genes
        tables = [
            gene_pairs.with_quantiles(
                gene_pairs.worst_pairs(table[table["dataset"] == name]).head(MOST_WORST),
                self.evaluation.test,
                self.evaluation.synthetic[name],
                self.types,
                self.gene_names,
            )
            for name in self.datasets
        ]
        return pd.concat(tables, ignore_index=True)
