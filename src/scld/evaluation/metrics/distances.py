"""Distances between two sets of cells."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist

WIDTHS = np.array([0.25, 0.5, 1, 2, 4])  # of the MMD's kernels, times the median squared distance


def wasserstein(real: np.ndarray, synthetic: np.ndarray, p: int = 2) -> float:
    """Exact Wasserstein-p distance, Euclidean ground cost: (min over plans of mean d^p)^(1/p).

    0: the same points. It is well above 0 between two halves of real cells, the more so the fewer
    the cells: compare it with the baseline. (Peyre and Cuturi, "Computational optimal transport",
    2019, eq. 2.18; solver: POT, Flamary et al., JMLR 22:78.)

    Parameters
    ----------
    real, synthetic
        ``[cells, components]``; up to a few thousand cells each.

    Returns
    -------
    float
        In the units of the components, 0 or more; lower is better.

    Examples
    --------
    >>> wasserstein(np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]]))
    2.0
    """
    import ot

    squared = p == 2
    distance = cdist(real, synthetic, "sqeuclidean" if squared else "euclidean")
    cost = distance if squared else distance**p
    return float(ot.emd2([], [], cost, numItermax=10_000_000) ** (1 / p))


def mmd2(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Squared maximum mean discrepancy, unbiased, averaged over Gaussian kernels of five widths.

    The widths are the median squared distance of all pooled cells times 1/4, 1/2, 1, 2 and 4, so
    they follow the data; k(x, y) = exp(-|x - y|^2 / width). Between two halves of real cells it is
    about 0, at times slightly negative. (Gretton et al., "A kernel two-sample test", JMLR 13:723,
    2012, eq. 3.)

    Parameters
    ----------
    real, synthetic
        ``[cells, components]``, at least two cells each.

    Returns
    -------
    float
        At most 2; lower is better.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(300, 3))
    >>> abs(mmd2(cells[:150], cells[150:])) < 0.02 < mmd2(cells[:150], cells[150:] + 1)
    True
    """
    within_real, within_synthetic = pdist(real, "sqeuclidean"), pdist(synthetic, "sqeuclidean")
    between = cdist(real, synthetic, "sqeuclidean").ravel()
    median = np.median(np.concatenate([within_real, within_synthetic, between]))
    widths = max(median, np.finfo(float).tiny) * WIDTHS

    def kernel_mean(squared: np.ndarray, width: float) -> float:
        return float(np.exp(-squared / width).mean())

    terms = [
        kernel_mean(within_real, w) + kernel_mean(within_synthetic, w) - 2 * kernel_mean(between, w)
        for w in widths
    ]
    return float(np.mean(terms))


def energy_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Energy distance, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, over all pairs of cells.

    A cell is paired with itself too. 0: the same points. (Szekely and Rizzo, J. Stat. Plan.
    Inference 143:1249, 2013, eq. 6. In one dimension it is the square of
    `scipy.stats.energy_distance`.)

    Parameters
    ----------
    real, synthetic
        ``[cells, components]``.

    Returns
    -------
    float
        In the units of the components, 0 or more; lower is better.

    Examples
    --------
    >>> energy_distance(np.array([[0.0]]), np.array([[3.0]]))
    6.0
    """
    between = cdist(real, synthetic).mean()
    return float(2 * between - _mean_distance(real) - _mean_distance(synthetic))


def _mean_distance(cells: np.ndarray) -> float:
    return float(2 * pdist(cells).sum() / len(cells) ** 2)
