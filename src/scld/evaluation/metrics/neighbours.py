"""Which cells are near which: mixing, precision, recall, density, coverage."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

NEIGHBOURS = 5  # k of precision, recall, density and coverage


def ilisi(real: np.ndarray, synthetic: np.ndarray, perplexity: float = 30) -> float:
    """Integration LISI: effective number of sets, real and synthetic, around a cell; the mean.

    2: perfectly mixed. 1: separate. It measures where cells are, not how they vary: cells without
    noise at the right places mix well. (Korsunsky et al., Nat Methods 16:1289, 2019: inverse
    Simpson index over the 3 x perplexity nearest neighbours, Gaussian weights of the given
    perplexity.)

    Parameters
    ----------
    real, synthetic
        ``[cells, components]``, equally many.

    Returns
    -------
    float
        From 1 to 2; higher is better.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(400, 2))
    >>> ilisi(cells[:200], cells[200:]) > 1.8, round(ilisi(cells[:200], cells[200:] + 99), 2)
    (True, 1.0)
    """
    from sklearn.neighbors import NearestNeighbors

    cells = np.concatenate([real, synthetic])
    is_synthetic = np.repeat([0.0, 1.0], [len(real), len(synthetic)])
    size = min(int(3 * perplexity), len(cells) - 1)
    distance, neighbour = NearestNeighbors(n_neighbors=size).fit(cells).kneighbors()
    weight = _perplexity_weights(distance, min(perplexity, size / 3))
    share = (weight * is_synthetic[neighbour]).sum(axis=1)
    return float((1 / (share**2 + (1 - share) ** 2)).mean())


def _perplexity_weights(distance: np.ndarray, perplexity: float) -> np.ndarray:
    """Weights exp(-beta d), each row summing to 1 with entropy log(perplexity), by bisection."""
    mean = np.maximum(distance.mean(axis=1, keepdims=True), np.finfo(float).tiny)
    scaled = (distance - distance[:, :1]) / mean
    low, high = np.full(len(distance), -30.0), np.full(len(distance), 30.0)  # log beta x row mean
    for _ in range(60):
        middle = (low + high) / 2
        weight = np.exp(-np.exp(middle)[:, None] * scaled)
        weight /= weight.sum(axis=1, keepdims=True)
        entropy = -(weight * np.log(np.maximum(weight, 1e-300))).sum(axis=1)
        too_flat = entropy > np.log(perplexity)
        low, high = np.where(too_flat, middle, low), np.where(too_flat, high, middle)
    return np.asarray(weight)


def neighbourhoods(
    real: np.ndarray, synthetic: np.ndarray, k: int = NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each real and synthetic cell lie in each other's neighbourhoods.

    The neighbourhood of a cell is the ball that reaches to its k-th nearest cell of its own set.

    Parameters
    ----------
    real, synthetic
        ``[cells, components]``, more than ``k`` cells each.

    Returns
    -------
    tuple of numpy.ndarray
        ``in_real [real, synthetic]``: the synthetic cell is in the real cell's neighbourhood;
        ``in_synthetic [real, synthetic]``: the real cell is in the synthetic cell's.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(100, 2))
    >>> in_real, in_synthetic = neighbourhoods(cells, cells)
    >>> precision(in_real), recall(in_synthetic), coverage(in_real)
    (1.0, 1.0, 1.0)
    """
    distance = cdist(real, synthetic)
    return distance < _radii(real, k)[:, None], distance < _radii(synthetic, k)


def _radii(cells: np.ndarray, k: int) -> np.ndarray:
    distance = cdist(cells, cells)
    return np.asarray(np.partition(distance, k, axis=1)[:, k])  # the 0th is the cell itself


def precision(in_real: np.ndarray) -> float:
    """Share of synthetic cells in the neighbourhood of a real cell; higher is better.

    (Kynkaanniemi et al., NeurIPS 2019, arXiv:1904.06991; ``in_real``: see `neighbourhoods`.)
    """
    return float(in_real.any(axis=0).mean())


def recall(in_synthetic: np.ndarray) -> float:
    """Share of real cells in the neighbourhood of a synthetic cell; higher is better.

    (Kynkaanniemi et al., NeurIPS 2019, arXiv:1904.06991; ``in_synthetic``: see `neighbourhoods`.)
    """
    return float(in_synthetic.any(axis=1).mean())


def density(in_real: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Mean number of real neighbourhoods around a synthetic cell, over k; 1 expected of real cells.

    (Naeem et al., ICML 2020, arXiv:2002.09797, eq. 3; ``in_real``: see `neighbourhoods`.)
    """
    return float(in_real.sum(axis=0).mean() / k)


def coverage(in_real: np.ndarray) -> float:
    """Share of real neighbourhoods that contain a synthetic cell; higher is better.

    (Naeem et al., ICML 2020, arXiv:2002.09797, eq. 4; ``in_real``: see `neighbourhoods`.)
    """
    return float(in_real.any(axis=1).mean())
