"""Distances between two clouds of cells."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist


def wasserstein(real: np.ndarray, fake: np.ndarray, p: int = 2) -> float:
    """Exact Wasserstein-p distance, Euclidean ground cost: (min over plans of the mean of d^p)^(1/p).

    0: the same points. Between two real halves it is well above 0, the more so the fewer the cells; read it beside the
    floor. (Peyre and Cuturi, "Computational optimal transport", 2019, eq. 2.18; solver: POT, Flamary et al., JMLR 22:78.)

    Parameters
    ----------
    real, fake
        ``[cells, components]``; up to a few thousand cells a side.

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

    cost = cdist(real, fake, "sqeuclidean" if p == 2 else "euclidean") ** (1 if p == 2 else p)
    return float(ot.emd2([], [], cost, numItermax=10_000_000) ** (1 / p))


def mmd2(real: np.ndarray, fake: np.ndarray) -> float:
    """Squared maximum mean discrepancy, unbiased, Gaussian kernels of five widths averaged.

    The widths are the median squared distance of all pooled cells times 1/4, 1/2, 1, 2 and 4, so that they follow the data;
    k(x, y) = exp(-|x - y|^2 / width). Around 0 (slightly negative too) between two real halves.
    (Gretton et al., "A kernel two-sample test", JMLR 13:723, 2012, eq. 3.)

    Parameters
    ----------
    real, fake
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
    within_real, within_fake, between = pdist(real, "sqeuclidean"), pdist(fake, "sqeuclidean"), cdist(real, fake, "sqeuclidean").ravel()
    median = np.median(np.concatenate([within_real, within_fake, between]))
    widths = max(median, np.finfo(float).tiny) * np.array([0.25, 0.5, 1, 2, 4])
    return float(np.mean([np.exp(-within_real / w).mean() + np.exp(-within_fake / w).mean() - 2 * np.exp(-between / w).mean() for w in widths]))


def energy_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Energy distance, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, every pair counted, a cell with itself too.

    0: the same points. (Szekely and Rizzo, J. Stat. Plan. Inference 143:1249, 2013, eq. 6. In one dimension it is the square
    of `scipy.stats.energy_distance`.)

    Parameters
    ----------
    real, fake
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
    return float(2 * cdist(real, fake).mean() - _mean_distance(real) - _mean_distance(fake))


def _mean_distance(cells: np.ndarray) -> float:
    return float(2 * pdist(cells).sum() / len(cells) ** 2)
