"""Membership inference on single cells: scores, the higher the more likely a cell was trained on.

Each attack takes cells of one type, log-normalised: those that were released, auxiliary ones (of
people who are neither in training nor attacked) and the cells that are attacked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics.privacy import nearest_distance
from scld.preprocessing import principal_components
from scld.privacy_audit import results

if TYPE_CHECKING:
    from scld.privacy_audit.donors import Cells

GENES = 300  # with the largest variance; 100 find less of a donor, and more are slow
COMPONENTS = {results.DISTANCE: 20, results.DOMIAS: 10}  # a density of more is not estimated well
LEAST_CELLS = 10  # of a type, among released and auxiliary cells, for it to be attacked
Attack = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def copula(released: np.ndarray, auxiliary: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Log ratio of two Mahalanobis distances, to auxiliary cells and to released ones.

    Each gene is mapped to a normal distribution by its ranks among both sets (a Gaussian copula).
    Mean and covariance of each set are estimated with shrinkage (Ledoit and Wolf 2004). After
    scMAMA-MIA (Golob et al. 2026, "Privacy vulnerabilities in synthetic single-cell RNA-sequence
    data"), whose copula has negative binomial margins.

    Parameters
    ----------
    released, auxiliary, cells
        ``[cells, genes]``.

    Returns
    -------
    numpy.ndarray
        ``[cells]``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(0, 1, (99, 3)), rng.normal(2, 1, (99, 3))
    >>> bool(copula(a, b, a).mean() > 0 > copula(a, b, b).mean())
    True
    """
    both = np.sort(np.concatenate([released, auxiliary]), axis=0)
    scores = normal_scores(both, cells)
    to_released = _mahalanobis(normal_scores(both, released), scores)
    to_auxiliary = _mahalanobis(normal_scores(both, auxiliary), scores)
    ratio: np.ndarray = np.log(to_auxiliary / to_released)
    return ratio


def normal_scores(reference: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The normal quantile of each value's rank among reference values sorted by gene.

    Ties, as zeros are, have the middle of their ranks.

    Examples
    --------
    >>> normal_scores(np.array([[0.0], [0.0], [1.0], [2.0]]), np.array([[0.5]])).tolist()
    [[0.0]]
    """
    from scipy.special import ndtri

    n, ranks = len(reference), np.empty(cells.shape)
    for gene in range(cells.shape[1]):
        below = np.searchsorted(reference[:, gene], cells[:, gene], "left")
        up_to = np.searchsorted(reference[:, gene], cells[:, gene], "right")
        ranks[:, gene] = (below + up_to) / (2 * n)
    values: np.ndarray = ndtri(ranks.clip(0.5 / n, 1 - 0.5 / n))
    return values


def _mahalanobis(reference: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Distance ``[cells]`` to the mean of the reference."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(reference)
    distance: np.ndarray = np.sqrt(fitted.mahalanobis(cells).clip(1e-12))
    return distance


def domias(released: np.ndarray, auxiliary: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Log density of the released cells, less that of the auxiliary ones, on components.

    Van Breugel et al., arXiv:2302.12580, equation 2, with Gaussian kernels as wide as Scott's rule
    says. Scale and components are those of both sets.

    Parameters
    ----------
    released, auxiliary, cells
        ``[cells, genes]``.

    Returns
    -------
    numpy.ndarray
        ``[cells]``.

    Examples
    --------
    >>> a, b = np.zeros((9, 2)) + np.arange(9)[:, None], np.ones((9, 2)) * 7 * np.eye(2)[[0] * 9]
    >>> bool(domias(a, b, a).mean() > domias(a, b, b).mean())
    True
    """
    sets = _projected(COMPONENTS[results.DOMIAS], released, auxiliary, cells)
    scale = np.concatenate(sets[:2]).std(axis=0).clip(1e-6)
    released, auxiliary, cells = (part / scale for part in sets)
    difference: np.ndarray = _log_density(released, cells) - _log_density(auxiliary, cells)
    return difference


def _log_density(reference: np.ndarray, cells: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KernelDensity

    width = len(reference) ** (-1 / (reference.shape[1] + 4))
    return np.asarray(KernelDensity(bandwidth=width).fit(reference).score_samples(cells))


def distance(released: np.ndarray, auxiliary: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Minus the distance to the nearest released cell, on components.

    Chen et al., GAN-Leaks, arXiv:1909.03935, equation 2. Auxiliary cells serve the components only.

    Parameters
    ----------
    released, auxiliary, cells
        ``[cells, genes]``.

    Returns
    -------
    numpy.ndarray
        ``[cells]``.

    Examples
    --------
    >>> a = np.array([[0.0, 0.0], [4.0, 0.0]])
    >>> distance(a, a + 9, np.array([[0.0, 0.0], [0.0, 3.0]])).round(3).tolist()
    [-0.0, -3.0]
    """
    released, _, cells = _projected(COMPONENTS[results.DISTANCE], released, auxiliary, cells)
    return -nearest_distance(cells, released)


def _projected(number: int, *sets: np.ndarray) -> list[np.ndarray]:
    """Sets of cells on components of the first two."""
    fitted = principal_components(np.concatenate(sets[:2]), number)
    return [(cells - fitted.mean) @ fitted.loadings for cells in sets]


BLACK_BOX: dict[str, Attack] = {
    results.COPULA: copula,
    results.DOMIAS: domias,
    results.DISTANCE: distance,
}


def scores_of_cells(released: Cells, auxiliary: Cells, cells: Cells) -> dict[str, np.ndarray]:
    """The scores ``[cells]`` of each attack, standardised within each type.

    Missing where a type has fewer than `LEAST_CELLS` released or auxiliary cells. Genes are chosen
    among released and auxiliary cells, so that they tell nothing about those that are attacked.
    """
    scores = {name: np.full(len(cells), np.nan) for name in BLACK_BOX}
    for kind in np.unique(cells.types):
        rows = np.flatnonzero(cells.types == kind)
        known = [each.log[each.types == kind] for each in (released, auxiliary)]
        if min(part.shape[0] for part in known) < LEAST_CELLS:
            continue
        genes = most_variable(known[0], known[1])
        dense = [part[:, genes].toarray().astype(float) for part in (*known, cells.log[rows])]
        for name, attack in BLACK_BOX.items():
            scores[name][rows] = standardised(attack(dense[0], dense[1], dense[2]))
    return scores


def most_variable(*parts: sp.csr_matrix) -> np.ndarray:
    """The genes with the largest variance over sets of cells together, in their order."""
    both = sp.csr_matrix(sp.vstack(parts, format="csr"), dtype=float)
    mean = np.asarray(both.mean(axis=0)).ravel()
    variance = np.asarray(both.multiply(both).mean(axis=0)).ravel() - mean**2
    return np.sort(np.argsort(-variance, kind="stable")[:GENES])


def standardised(scores: np.ndarray) -> np.ndarray:
    """With mean 0 and variance 1, so that types count alike; zeros if all are equal.

    Examples
    --------
    >>> standardised(np.array([1.0, 3.0])).tolist(), standardised(np.ones(2)).tolist()
    ([-1.0, 1.0], [0.0, 0.0])
    """
    centred = scores - scores.mean()
    sd = float(centred.std())
    return centred / sd if sd > 1e-12 else np.zeros(len(scores))
