"""The two sets of cells that metrics compare; what several metrics need is computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from scld.evaluation.cells import Cells, Reference, View
from scld.evaluation.memorisation import Memorisation
from scld.evaluation.metrics.genes import gene_moments
from scld.evaluation.metrics.labels import label_predictor, t_statistics
from scld.evaluation.metrics.neighbours import neighbourhoods
from scld.evaluation.metrics.published import cfgen_space
from scld.evaluation.metrics.two_sample import CLASSIFIERS, out_of_fold
from scld.evaluation.metrics.type_genes import TypeMoments, type_moments

MIN_TYPE_CELLS = 10  # real cells of a type, below which its scores are noise
Arrays = tuple[np.ndarray, np.ndarray]
Moments = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Equally many real and synthetic cells of the same composition.

    Parameters
    ----------
    reference
        What is fitted on the training cells.
    real, synthetic
        The cells that are compared.
    seed
        Seed of the classifiers.
    test
        All test cells, for metrics that train on synthetic cells and test on real ones.
    teaching
        Synthetic cells to train on for that; as many for each dataset.
    memorisation
        For the privacy metrics; None without test cells.
    code
        The type, if the cells are those of one type.
    parent
        The comparison of all cells, if these are those of one type.
    """

    reference: Reference
    real: View
    synthetic: View
    seed: int
    test: View | None = None
    teaching: View | None = None
    memorisation: Memorisation | None = None
    code: int | None = None
    parent: Comparison | None = None

    def of_type(self, code: int) -> Comparison:
        """The comparison of the cells of one type."""
        real, synthetic = self.real.of_type(code), self.synthetic.of_type(code)
        return replace(self, real=real, synthetic=synthetic, code=code, parent=self)

    @property
    def overall(self) -> Comparison:
        """The comparison of all cells."""
        return self if self.parent is None else self.parent

    @cached_property
    def classifier_scores(self) -> dict[str, Arrays]:
        """Classifier -> its out-of-fold scores of real and of synthetic cells."""
        return {
            name: out_of_fold(*self._features(name), make, self.seed)
            for name, make in CLASSIFIERS.items()
        }

    def _features(self, classifier: str) -> Arrays:
        """The input of one classifier: ``[cells, features]`` of real and of synthetic cells."""
        if classifier == "forest":
            return self.real.dense, self.synthetic.dense
        if classifier == "linear":
            standardise = self.reference.space.standardise
            return standardise(self.real.dense), standardise(self.synthetic.dense)
        return self._components_and_size(self.real), self._components_and_size(self.synthetic)

    def _components_and_size(self, view: View) -> np.ndarray:
        sizes = [np.log1p(view.cells.detected)]
        if self.reference.with_depth and view.cells.library is not None:
            sizes.append(np.log(view.cells.library))
        return np.column_stack([view.components, *sizes])

    @cached_property
    def moments(self) -> tuple[Moments, Moments]:
        """`gene_moments` of real and of synthetic cells."""
        return gene_moments(self.real.cells.log), gene_moments(self.synthetic.cells.log)

    @cached_property
    def neighbourhoods(self) -> Arrays:
        """See `metrics.neighbours.neighbourhoods`."""
        return neighbourhoods(self.real.components, self.synthetic.components)

    @cached_property
    def cfgen_components(self) -> Arrays:
        """See `metrics.published.cfgen_space`."""
        return cfgen_space(self.real.cells.log, self.synthetic.cells.log, self.seed)

    @cached_property
    def marker_rows(self) -> np.ndarray:
        """Rows of `Reference.markers` of the types with enough cells."""
        codes = self.real.cells.codes
        counts = np.array([(codes == t).sum() for t in self.reference.types])
        return np.flatnonzero(counts >= MIN_TYPE_CELLS)

    @cached_property
    def type_moments(self) -> tuple[TypeMoments, TypeMoments]:
        """`type_moments` of real and of synthetic cells, one row per type of the reference."""
        types, real, synthetic = self.reference.types, self.real.cells, self.synthetic.cells
        of_real = type_moments(real.log, real.codes, types)
        return of_real, type_moments(synthetic.log, synthetic.codes, types)

    @cached_property
    def t_statistics(self) -> Arrays:
        """`t_statistics` ``[marker_rows, genes]`` of real and of synthetic cells."""
        types = self.reference.types[self.marker_rows]
        real, synthetic = self.real.cells, self.synthetic.cells
        of_real = t_statistics(real.log, real.codes, types)
        return of_real, t_statistics(synthetic.log, synthetic.codes, types)

    @cached_property
    def predicted_test(self) -> np.ndarray:
        """Types of the test cells, predicted by a classifier trained on synthetic cells."""
        assert self.teaching is not None
        assert self.test is not None
        predict = label_predictor(self.teaching.components, self.teaching.cells.codes)
        return predict(self.test.components)

    @cached_property
    def predicted_synthetic(self) -> np.ndarray:
        """Types of the synthetic cells, predicted by a classifier trained on real cells."""
        assert self.reference.predict is not None
        return self.reference.predict(self.synthetic.components)


@dataclass(frozen=True, eq=False)
class DatasetPair:
    """All cells of a dataset and all training cells."""

    train: Cells
    cells: Cells
    with_composition: bool = True  # False where the composition was prescribed

    @cached_property
    def matrices(self) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """Counts of both, or rounded log-normalised values where one has no counts."""
        if self.train.counts is None or self.cells.counts is None:
            return _rounded(self.train.log), _rounded(self.cells.log)
        return self.train.counts, self.cells.counts


def _rounded(log: sp.csr_matrix) -> sp.csr_matrix:
    """Three decimals: the rounding of another program must not hide a copy."""
    return sp.csr_matrix((np.round(log.data, 3), log.indices, log.indptr), shape=log.shape)
