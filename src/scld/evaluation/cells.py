"""Containers: cells, cells in a `Space`, and what is fitted on the training cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics.labels import label_predictor, t_statistics, top_markers
from scld.evaluation.metrics.space import Space
from scld.evaluation.metrics.type_genes import (
    TypeMoments,
    central_range,
    identity_genes,
    type_moments,
)
from scld.preprocessing import log_normalise

OVERALL = "overall"  # the group of all cells; every other group is a type
CORRELATED_GENES = 50  # most variable genes of a type, whose correlations are compared


@dataclass(frozen=True, eq=False)
class Cells:
    """Log-normalised cells and the code of their type; ``counts`` None: input without counts."""

    log: sp.csr_matrix
    codes: np.ndarray
    counts: sp.csr_matrix | None = None
    donors: np.ndarray | None = None

    @classmethod
    def of_counts(
        cls, counts: sp.csr_matrix, codes: np.ndarray, donors: np.ndarray | None = None
    ) -> Cells:
        """Cells from raw counts."""
        return cls(log_normalise(counts), codes, counts, donors)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: np.ndarray) -> Cells:
        counts = None if self.counts is None else self.counts[rows]
        donors = None if self.donors is None else self.donors[rows]
        return Cells(self.log[rows], self.codes[rows], counts, donors)

    def sizes(self, types: int) -> np.ndarray:
        """Number of cells of each of so many types."""
        return np.bincount(self.codes, minlength=types)

    @cached_property
    def library(self) -> np.ndarray | None:
        """Counts per cell; None without counts."""
        return None if self.counts is None else np.asarray(self.counts.sum(axis=1)).ravel()

    @cached_property
    def detected(self) -> np.ndarray:
        """Genes detected per cell."""
        return np.asarray((self.log > 0).sum(axis=1)).ravel()


@dataclass(frozen=True, eq=False)
class View:
    """Cells in a `Space`: their variable genes and their principal components."""

    cells: Cells
    dense: np.ndarray
    components: np.ndarray

    @classmethod
    def of(cls, cells: Cells, space: Space) -> View:
        """Project cells into a space."""
        dense = space.dense(cells.log)
        return cls(cells, dense, space.project(dense))

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, rows: np.ndarray) -> View:
        return View(self.cells[rows], self.dense[rows], self.components[rows])

    def of_type(self, code: int) -> View:
        """The cells of one type."""
        return self[self.cells.codes == code]


@dataclass(frozen=True, eq=False)
class Reference:
    """What is fitted on the training cells, before any synthetic cell is scored.

    Parameters
    ----------
    train
        The training cells.
    space
        Fitted on the training cells.
    types
        Codes of the types of the training cells.
    moments
        Moments of every gene in each type.
    markers, markers_by_t
        ``[types, 50]`` marker genes, by effect (log2 fold change) and by Welch's t; None with one
        type. The first are specific, the second abundant genes of large types.
    identity_genes
        Type -> its most abundant specific genes; see `metrics.type_genes.identity_genes`.
    identity_ranges
        Type -> 95% minus 5% quantile of each of its identity genes.
    correlated_genes
        Type -> the variable genes whose correlations are compared.
    predict
        Classifier of types, see `label_predictor`; None with one type.
    label_codes
        Label -> code of its category in each type, if there are several labels.
    predict_label
        Label -> classifier of its categories.
    with_depth
        Whether classifiers may use the library size: only where every dataset has counts.
    seed
        Seed of everything that is random.
    """

    train: Cells
    space: Space
    types: np.ndarray
    moments: TypeMoments
    markers: np.ndarray | None
    markers_by_t: np.ndarray | None
    identity_genes: dict[int, np.ndarray]
    identity_ranges: dict[int, np.ndarray]
    correlated_genes: dict[int, np.ndarray]
    predict: Callable[[np.ndarray], np.ndarray] | None
    label_codes: Mapping[str, np.ndarray]
    predict_label: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    with_depth: bool
    seed: int

    @classmethod
    def of(
        cls,
        train: Cells,
        with_depth: bool = True,
        seed: int = 0,
        label_codes: Mapping[str, np.ndarray] | None = None,
    ) -> Reference:
        """Fit on the training cells."""
        label_codes = label_codes or {}
        space = Space.fit(train.log, seed=seed)
        types, dense = np.unique(train.codes), space.dense(train.log)
        genes = {int(t): _most_variable(dense[train.codes == t]) for t in types}
        moments = type_moments(train.log, train.codes, types)
        markers, by_t, predict = None, None, None
        if len(types) > 1:
            markers = top_markers(moments.effects)
            by_t = top_markers(t_statistics(train.log, train.codes, types))
            predict = label_predictor(space.project(dense), train.codes)
        identity = identity_genes(moments, types)
        ranges = {t: central_range(train.log[train.codes == t], identity[t]) for t in identity}
        return cls(
            train=train,
            space=space,
            types=types,
            moments=moments,
            markers=markers,
            markers_by_t=by_t,
            identity_genes=identity,
            identity_ranges=ranges,
            correlated_genes=genes,
            predict=predict,
            label_codes=label_codes,
            predict_label={
                label: label_predictor(space.project(dense), codes[train.codes])
                for label, codes in label_codes.items()
                if len(np.unique(codes)) > 1
            },
            with_depth=with_depth,
            seed=seed,
        )

    def row(self, code: int) -> int:
        """The row of a type in arrays ``[types, ...]``."""
        return int(np.searchsorted(self.types, code))

    def view(self, cells: Cells) -> View:
        """Cells in the space of the training cells."""
        return View.of(cells, self.space)


def _most_variable(dense: np.ndarray) -> np.ndarray:
    return np.argsort(-dense.var(axis=0), kind="stable")[:CORRELATED_GENES]
