"""Every gene within each type, in counts per 10,000 that are not log-transformed.

A logarithm hides what matters for an abundant gene: 500 and 800 counts per 10,000 differ by 0.5.
Everything here is computed for all genes at once, and no matrix of cells is made dense.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics.labels import PSEUDOCOUNT, effects

MIN_TYPE_CELLS = 30  # of a type: below that, z of skewed counts is not near a normal distribution
# Among real cells, pairs of gene and type that are detected in at least 20 cells of both groups
# together are 3 standard errors apart in 0.2 to 0.3% of cases (0.27% expected), and rarer genes
# in fewer. A variance needs more cells: at 20 to 30, a third of the pairs of real cells differ by
# a factor of two, from 50 on about a tenth or less.
MIN_DETECTED_MEAN, MIN_DETECTED_VARIANCE = 20, 50
IDENTITY_GENES = 10  # of a type
SPECIFIC = 1.0  # log2 fold change of an identity gene, at least
TINY = 1e-12  # counts per 10,000: keeps a ratio of two variances finite


@dataclass(frozen=True, eq=False)
class TypeMoments:
    """Moments of every gene in each type, in counts per 10,000.

    Parameters
    ----------
    cells
        ``[types]`` number of cells.
    mean, variance
        ``[types, genes]``; the variance is the unbiased one.
    detected
        ``[types, genes]`` number of cells with the gene.
    rest
        ``[types, genes]`` mean in all other cells.
    """

    cells: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    detected: np.ndarray
    rest: np.ndarray

    @property
    def effects(self) -> np.ndarray:
        """See `labels.effects`: ``[types, genes]``."""
        return effects(self.mean, self.rest)


def type_moments(log: sp.csr_matrix, codes: np.ndarray, types: np.ndarray) -> TypeMoments:
    """Moments of every gene in each type.

    Parameters
    ----------
    log
        ``[cells, genes]`` log(1 + counts per 10,000); the moments are those of the counts per
        10,000.
    codes
        ``[cells]`` type of each cell.
    types
        Sorted codes. Cells of other types count as the rest.

    Examples
    --------
    >>> log = sp.csr_matrix(np.log1p([[4.0, 0.0], [6.0, 0.0], [0.0, 3.0]]))
    >>> moments = type_moments(log, np.array([0, 0, 1]), np.array([0, 1]))
    >>> moments.mean.round(6)
    array([[5., 0.],
           [0., 3.]])
    """
    member = _membership(codes, types)
    cells = np.asarray(member.sum(axis=1))
    scaled = _unlogged(log)
    total = np.asarray(scaled.sum(axis=0)).ravel()
    sums = (member @ scaled).toarray()
    squares = (member @ scaled.multiply(scaled)).toarray()
    detected = (member @ (scaled > 0).astype(np.float64)).toarray()
    mean = sums / np.maximum(cells, 1)
    variance = (squares - cells * mean**2) / np.maximum(cells - 1, 1)
    rest = (total - sums) / np.maximum(len(codes) - cells, 1)
    return TypeMoments(cells.ravel(), mean, np.maximum(variance, 0), detected, rest)


def _membership(codes: np.ndarray, types: np.ndarray) -> sp.csr_matrix:
    """``[types, cells]``, 1 where a cell is of a type."""
    known = np.flatnonzero(np.isin(codes, types))
    rows = np.searchsorted(types, codes[known])
    parts = (np.ones(len(known)), (rows, known))
    return sp.csr_matrix(parts, shape=(len(types), len(codes)))


def _unlogged(log: sp.csr_matrix) -> sp.csr_matrix:
    """Log-normalised values -> counts per 10,000, in double precision."""
    values = np.expm1(log.data.astype(np.float64))
    return sp.csr_matrix((values, log.indices, log.indptr), shape=log.shape)


def mean_z(real: TypeMoments, synthetic: TypeMoments) -> np.ndarray:
    """Synthetic mean minus real mean, in standard errors of the difference: ``[types, genes]``.

    Welch's t (1947, Biometrika 34:28). Ideal 0: above 3 or below -3 for 0.3% of pairs in equally
    distributed cells.

    Examples
    --------
    >>> log, codes = sp.csr_matrix(np.log1p([[4.0], [6.0]])), np.array([0, 0])
    >>> moments = type_moments(log, codes, np.array([0]))
    >>> mean_z(moments, moments)
    array([[0.]])
    """
    errors = _squared_errors(real), _squared_errors(synthetic)
    return _in_errors(synthetic.mean - real.mean, *errors)


@dataclass(frozen=True, eq=False)
class OutsideMeans:
    """Every gene in all types but one, ``[types, genes]``: means of both sides, detections, z."""

    real: np.ndarray
    synthetic: np.ndarray
    detected: np.ndarray
    z: np.ndarray


def outside_means(real: TypeMoments, synthetic: TypeMoments) -> OutsideMeans:
    """Means in the cells of all other types, as if both sides had the types of the real cells.

    Each type is weighted by its real cells on both sides, so that another composition of the
    synthetic cells is no leak. Types with fewer than 30 cells on a side have no weight.

    Examples
    --------
    >>> log = sp.csr_matrix(np.log1p(np.repeat([[8.0], [2.0], [4.0]], 30, axis=0)))
    >>> moments = type_moments(log, np.repeat([0, 1, 2], 30), np.arange(3))
    >>> outside_means(moments, moments).real.round(6).ravel()
    array([3., 6., 5.])
    """
    large = np.minimum(real.cells, synthetic.cells) >= MIN_TYPE_CELLS
    weight = (real.cells * large)[:, None].astype(np.float64)
    of_others = weight.sum() - weight

    def others(values: np.ndarray, power: int = 1) -> np.ndarray:
        weighted = weight**power * values
        return np.asarray((weighted.sum(axis=0) - weighted) / np.maximum(of_others, 1) ** power)

    of_real, of_synthetic = others(real.mean), others(synthetic.mean)
    errors = [others(_squared_errors(moments), 2) for moments in (real, synthetic)]
    z = _in_errors(of_synthetic - of_real, *errors)
    detected = detected_in_both(real, synthetic) * large[:, None]
    return OutsideMeans(of_real, of_synthetic, detected.sum(axis=0) - detected, z)


def _squared_errors(moments: TypeMoments) -> np.ndarray:
    """Squared standard error of each mean."""
    return np.asarray(moments.variance / np.maximum(moments.cells, 1)[:, None])


def _in_errors(difference: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A difference divided by its standard error; arguments: squared errors of the two sides."""
    return np.asarray(difference / np.sqrt(np.maximum(first + second, TINY)))


def variance_ratio(real: TypeMoments, synthetic: TypeMoments) -> np.ndarray:
    """Synthetic variance divided by real variance, ``[types, genes]``; ideal 1.

    Examples
    --------
    >>> real, synthetic = (
    ...     type_moments(sp.csr_matrix(np.log1p(cells)), np.array([0, 0]), np.array([0]))
    ...     for cells in ([[4.0], [6.0]], [[3.0], [7.0]])
    ... )
    >>> variance_ratio(real, synthetic).round(6)
    array([[4.]])
    """
    return np.asarray((synthetic.variance + TINY) / (real.variance + TINY))


def spread_z(
    log: tuple[sp.csr_matrix, sp.csr_matrix],
    codes: tuple[np.ndarray, np.ndarray],
    moments: tuple[TypeMoments, TypeMoments],
    types: np.ndarray,
) -> np.ndarray:
    """Difference of the mean absolute deviations in standard errors, ``[types, genes]``.

    It tells whether a ratio of variances can be chance. Levene's idea (as Brown and Forsythe, JASA
    69:364, 1974): Welch's t of the deviations from a common centre, here the mean of both means.
    A test of the variances themselves would need fourth moments, which a few cells decide.

    Parameters
    ----------
    log, codes, moments
        Of real and of synthetic cells, see `type_moments`.
    types
        Sorted codes.

    Examples
    --------
    >>> cells, codes, types = np.arange(50.0)[:, None], np.zeros(50, dtype=int), np.array([0])
    >>> log = tuple(sp.csr_matrix(np.log1p(values)) for values in (cells, 4 * cells))
    >>> both = tuple(type_moments(one, codes, types) for one in log)
    >>> bool(spread_z(log, (codes, codes), both, types)[0, 0] > 3)
    True
    """
    centre = (moments[0].mean + moments[1].mean) / 2
    found, errors = [], []
    for one, of_cells, own in zip(log, codes, moments, strict=True):
        deviation = _mean_deviation(one, of_cells, own, types, centre)
        cells = np.maximum(own.cells, 1)[:, None]
        square = own.variance * (cells - 1) / cells + (own.mean - centre) ** 2
        found.append(deviation)
        errors.append(np.maximum(square - deviation**2, 0) / np.maximum(cells - 1, 1))
    return _in_errors(found[1] - found[0], *errors)


def _mean_deviation(
    log: sp.csr_matrix,
    codes: np.ndarray,
    moments: TypeMoments,
    types: np.ndarray,
    centre: np.ndarray,
) -> np.ndarray:
    """Mean of ``|x - centre|`` in each type: a zero deviates by ``centre``, whatever the cell."""
    scaled = _unlogged(log)
    rows = np.repeat(np.minimum(np.searchsorted(types, codes), len(types) - 1), np.diff(log.indptr))
    at = centre[rows, scaled.indices]
    scaled.data = np.abs(scaled.data - at) - at
    sums = (_membership(codes, types) @ scaled).toarray()
    return np.asarray(centre + sums / np.maximum(moments.cells, 1)[:, None])


def detected_in_both(real: TypeMoments, synthetic: TypeMoments) -> np.ndarray:
    """Cells of both groups together that have the gene, ``[types, genes]``."""
    return np.asarray(real.detected + synthetic.detected)


def share_outside(values: np.ndarray, limit: float) -> float:
    """Share of values above ``limit`` or below ``-limit``.

    Examples
    --------
    >>> share_outside(np.array([0.0, 2.0, -4.0, 5.0]), 3)
    0.5
    """
    return float(np.mean(np.abs(values) > limit))


def median(values: np.ndarray) -> float:
    """Median: a few genes whose variance one cell decides do not move it.

    Examples
    --------
    >>> median(np.array([1.0, 2.0, 100.0]))
    2.0
    """
    return float(np.median(values))


def share_within(real: np.ndarray, synthetic: np.ndarray, tolerance: float) -> float:
    """Share of synthetic values that differ from the real ones by at most ``tolerance`` of these.

    Examples
    --------
    >>> share_within(np.array([100.0, 100.0]), np.array([110.0, 60.0]), 0.15)
    0.5
    """
    return float(np.mean(np.abs(synthetic - real) <= tolerance * np.asarray(real)))


def geometric_ratio(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Geometric mean of ``(synthetic + 0.1) / (real + 0.1)``, of means in counts per 10,000.

    Examples
    --------
    >>> round(geometric_ratio(np.array([9.9, 19.9]), np.array([4.9, 39.9])), 6)
    1.0
    """
    return float(np.exp(np.mean(np.log((synthetic + PSEUDOCOUNT) / (real + PSEUDOCOUNT)))))


def identity_genes(moments: TypeMoments, types: np.ndarray) -> dict[int, np.ndarray]:
    """Type -> its most abundant specific genes, ten at most, the most abundant first.

    Specific: a log2 fold change of the type against the rest of at least 1. Left out are types
    with fewer than 30 cells, and types without a specific gene.

    Parameters
    ----------
    moments
        Of the training cells.
    types
        Sorted codes.

    Examples
    --------
    >>> counts = np.repeat([[50.0, 9.0, 5.0], [50.0, 0.0, 1.0]], 30, axis=0)
    >>> codes, types = np.repeat([0, 1], 30), np.array([0, 1])
    >>> moments = type_moments(sp.csr_matrix(np.log1p(counts)), codes, types)
    >>> identity_genes(moments, types)
    {0: array([1, 2])}
    """
    changes, found = moments.effects, {}
    for row in np.flatnonzero(moments.cells >= MIN_TYPE_CELLS):
        level = np.where(changes[row] >= SPECIFIC, moments.mean[row], 0)
        top = np.argsort(-level, kind="stable")[:IDENTITY_GENES]
        if level[top[0]] > 0:
            found[int(types[row])] = top[level[top] > 0]
    return found


def gene_quantiles(log: sp.csr_matrix, genes: np.ndarray, at: tuple[float, ...]) -> np.ndarray:
    """Quantiles of some genes over all cells, in counts per 10,000: ``[quantiles, genes]``.

    Examples
    --------
    >>> log = sp.csr_matrix(np.log1p([[4.0, 1.0], [6.0, 1.0]]))
    >>> gene_quantiles(log, np.array([0]), (0.5,)).round(6)
    array([[5.]])
    """
    return np.asarray(np.quantile(unlogged_columns(log, genes), at, axis=0))


def unlogged_columns(log: sp.csr_matrix, genes: np.ndarray) -> np.ndarray:
    """Counts per 10,000 of some genes, ``[cells, genes]``."""
    return np.expm1(log[:, genes].toarray().astype(np.float64))


def central_range(log: sp.csr_matrix, genes: np.ndarray) -> np.ndarray:
    """95% minus 5% quantile of some genes, in counts per 10,000: ``[genes]``.

    Examples
    --------
    >>> log = sp.csr_matrix(np.log1p(np.arange(101.0)))
    >>> central_range(log.T.tocsr(), np.array([0])).round(6)
    array([90.])
    """
    low, high = gene_quantiles(log, genes, (0.05, 0.95))
    return np.asarray(high - low)
