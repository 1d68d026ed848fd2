"""What each metric takes from a comparison: the column ``takes`` of the registry.

Each function returns the arguments of a metric, or None where the metric is not defined.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from scld.evaluation.comparison import Arrays, Comparison, DatasetPair
from scld.evaluation.memorisation import DonorDistances
from scld.evaluation.metrics import type_genes
from scld.evaluation.metrics.type_genes import (
    TypeMoments,
    central_range,
    detected_in_both,
    mean_z,
    variance_ratio,
)

Statistic = Callable[[TypeMoments, TypeMoments], np.ndarray]


def components(c: Comparison) -> Arrays:
    """Principal components of real and of synthetic cells."""
    return c.real.components, c.synthetic.components


def variable_genes(c: Comparison) -> tuple[np.ndarray, np.ndarray, int]:
    """Log-normalised variable genes, and a seed."""
    return c.real.dense, c.synthetic.dense, c.seed


def forest_scores(c: Comparison) -> Arrays:
    """Scores by the random forest: of synthetic cells (positive), of real ones."""
    return c.classifier_scores["forest"][::-1]


def linear_scores(c: Comparison) -> Arrays:
    """Scores by the logistic regression: of synthetic cells (positive), of real ones."""
    return c.classifier_scores["linear"][::-1]


def boosting_scores(c: Comparison) -> Arrays:
    """Scores by the boosted trees: of synthetic cells (positive), of real ones."""
    return c.classifier_scores["boosting"][::-1]


def all_classifier_scores(c: Comparison) -> tuple[Arrays, ...]:
    """The scores by every classifier."""
    return forest_scores(c), linear_scores(c), boosting_scores(c)


def in_real_neighbourhoods(c: Comparison) -> tuple[np.ndarray]:
    """Which synthetic cells are in which real neighbourhoods."""
    return (c.neighbourhoods[0],)


def in_synthetic_neighbourhoods(c: Comparison) -> tuple[np.ndarray]:
    """Which real cells are in which synthetic neighbourhoods."""
    return (c.neighbourhoods[1],)


def gene_means(c: Comparison) -> Arrays:
    """Mean of each gene."""
    return c.moments[0]["mean"], c.moments[1]["mean"]


def gene_variances(c: Comparison) -> Arrays:
    """Variance of each gene."""
    return c.moments[0]["variance"], c.moments[1]["variance"]


def detection_rates(c: Comparison) -> Arrays:
    """Detection rate of each gene."""
    return c.moments[0]["detection"], c.moments[1]["detection"]


def library_sizes(c: Comparison) -> Arrays | None:
    """Counts per cell; None unless both sets are counts."""
    real, synthetic = c.real.cells.library, c.synthetic.cells.library
    return None if real is None or synthetic is None else (real, synthetic)


def genes_per_cell(c: Comparison) -> Arrays:
    """Genes detected per cell."""
    return c.real.cells.detected, c.synthetic.cells.detected


def correlated_genes(c: Comparison) -> Arrays | None:
    """The most variable genes of one type; None for all cells."""
    if c.code is None:
        return None
    genes = c.reference.correlated_genes[c.code]
    return np.take(c.real.dense, genes, axis=1), np.take(c.synthetic.dense, genes, axis=1)


def _marker_slice(c: Comparison) -> slice | None:
    """Rows of the marker tables: all, or that of one type; None where there are none."""
    rows = c.overall.marker_rows
    if c.reference.markers is None or len(rows) < 2:
        return None
    if c.code is None:
        return slice(None)
    found = np.flatnonzero(c.reference.types[rows] == c.code)
    return slice(found[0], found[0] + 1) if len(found) else None


def marker_effects(c: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Effects of every gene, and which are markers by effect; None with one type."""
    return _effects(c, c.reference.markers)


def marker_effects_by_t(c: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Effects of every gene, and which are markers by t; None with one type."""
    return _effects(c, c.reference.markers_by_t)


def _effects(
    c: Comparison, markers: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    rows = _marker_slice(c)
    if rows is None or markers is None:
        return None
    of_types = c.overall.marker_rows[rows]
    real, synthetic = (moments.effects[of_types] for moments in c.overall.type_moments)
    return real, synthetic, markers[of_types]


def means_inside(c: Comparison) -> Arrays | None:
    """Means of the markers by effect, each in its type; None with one type."""
    return _marker_means(c, *(moments.mean for moments in c.overall.type_moments))


def means_outside(c: Comparison) -> Arrays | None:
    """Means of the markers by effect, each in all other cells; None with one type."""
    return _marker_means(c, *(moments.rest for moments in c.overall.type_moments))


def _marker_means(c: Comparison, real: np.ndarray, synthetic: np.ndarray) -> Arrays | None:
    rows = _marker_slice(c)
    if rows is None or c.reference.markers is None:
        return None
    of_types = c.overall.marker_rows[rows]
    at = (of_types[:, None], c.reference.markers[of_types])
    return real[at], synthetic[at]


def _pairs(c: Comparison, statistic: Statistic, detected: int) -> np.ndarray | None:
    """A statistic of the pairs of gene and type with enough cells and detections; None: no pair."""
    real, synthetic = c.overall.type_moments
    enough = detected_in_both(real, synthetic) >= detected
    enough &= (np.minimum(real.cells, synthetic.cells) >= type_genes.MIN_TYPE_CELLS)[:, None]
    rows = slice(None) if c.code is None else [c.reference.row(c.code)]
    found = statistic(real, synthetic)[rows][enough[rows]]
    return found if len(found) else None


def type_mean_z(c: Comparison) -> tuple[np.ndarray] | None:
    """Differences of means in standard errors, of every gene in every type."""
    found = _pairs(c, mean_z, type_genes.MIN_DETECTED_MEAN)
    return None if found is None else (found,)


def type_variance_ratios(c: Comparison) -> tuple[np.ndarray] | None:
    """Ratios of variances, of every gene in every type."""
    found = _pairs(c, variance_ratio, type_genes.MIN_DETECTED_VARIANCE)
    return None if found is None else (found,)


def type_variance_log_ratios(c: Comparison) -> tuple[np.ndarray] | None:
    """Their logarithms to base 2."""
    found = type_variance_ratios(c)
    return None if found is None else (np.log2(found[0]),)


def identity_levels(c: Comparison) -> Arrays | None:
    """Means of the identity genes of one type in training and in synthetic cells."""
    if c.code is None or c.code not in c.reference.identity_genes:
        return None
    row, genes = c.reference.row(c.code), c.reference.identity_genes[c.code]
    return c.reference.moments.mean[row, genes], c.overall.type_moments[1].mean[row, genes]


def identity_ranges(c: Comparison) -> Arrays | None:
    """5-95% ranges of the identity genes of one type in training and in synthetic cells."""
    if c.code is None or c.code not in c.reference.identity_genes:
        return None
    genes = c.reference.identity_genes[c.code]
    return c.reference.identity_ranges[c.code], central_range(c.synthetic.cells.log, genes)


def marker_statistics(c: Comparison) -> Arrays | None:
    """Welch's t of every gene; None with one type."""
    rows = _marker_slice(c)
    if rows is None:
        return None
    real, synthetic = c.overall.t_statistics
    return real[rows], synthetic[rows]


def predicted_test_types(c: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """True and predicted types of the test cells, and the types to average over."""
    if c.reference.predict is None or c.teaching is None or c.test is None:
        return None
    codes = c.test.cells.codes
    present = np.unique(codes)
    types = present if c.code is None else present[present == c.code]
    return (codes, c.overall.predicted_test, types) if len(types) else None


def predicted_synthetic_types(c: Comparison) -> Arrays | None:
    """Own and predicted types of the synthetic cells."""
    if c.reference.predict is None or not len(c.synthetic):
        return None
    codes, predicted = c.overall.synthetic.cells.codes, c.overall.predicted_synthetic
    rows = slice(None) if c.code is None else codes == c.code
    return codes[rows], predicted[rows]


def nearest_real_cells(c: Comparison) -> Arrays | None:
    """Distances of synthetic cells to the nearest training and to the nearest test cell."""
    near = c.memorisation
    return None if near is None else (near.to_training, near.to_held_out)


def attacked_cells(c: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Components of synthetic, training and test cells."""
    near = c.memorisation
    return None if near is None else (near.synthetic, near.training, near.held_out)


def attacked_donors(c: Comparison) -> DonorDistances | None:
    """Distances, types and donors of training and test cells."""
    return None if c.memorisation is None else c.memorisation.by_donor


def cfgen_components(c: Comparison) -> Arrays | None:
    """Cells of one type in CFGen's space; None for all cells."""
    if c.code is None:
        return None
    real, synthetic = c.overall.cfgen_components
    of_real = real[c.overall.real.cells.codes == c.code]
    return of_real, synthetic[c.overall.synthetic.cells.codes == c.code]


def dataset_and_training(pair: DatasetPair) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Matrices of the dataset and of the training cells."""
    train, cells = pair.matrices
    return cells, train


def dataset_alone(pair: DatasetPair) -> tuple[sp.csr_matrix]:
    """Matrix of the dataset."""
    return (pair.matrices[1],)


def compositions(pair: DatasetPair) -> Arrays | None:
    """Cells of each type in training and in the dataset; None with one type."""
    types = int(max(pair.train.codes.max(), pair.cells.codes.max())) + 1
    if types == 1 or not pair.with_composition:
        return None
    return pair.train.sizes(types), pair.cells.sizes(types)
