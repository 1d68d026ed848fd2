"""Who lies next to whom: mixing, precision, recall, density, coverage."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def ilisi(real: np.ndarray, fake: np.ndarray, perplexity: float = 30) -> float:
    """Integration LISI: the effective number of sets, real and synthetic, in a cell's neighbourhood, averaged over cells.

    2: perfectly mixed. 1: apart. It sees where cells lie, not how they spread: cells without noise, put in the right
    places, mix well. (Korsunsky et al., Nat Methods 16:1289, 2019: inverse Simpson index over the 3 x perplexity nearest
    neighbours, Gaussian weights of the given perplexity.)

    Parameters
    ----------
    real, fake
        ``[cells, components]``, equally many.

    Returns
    -------
    float
        In 1..2; higher is better.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(400, 2))
    >>> ilisi(cells[:200], cells[200:]) > 1.8, round(ilisi(cells[:200], cells[200:] + 99), 2)
    (True, 1.0)
    """
    from sklearn.neighbors import NearestNeighbors

    cells, is_fake = np.concatenate([real, fake]), np.repeat([0.0, 1.0], [len(real), len(fake)])
    size = min(int(3 * perplexity), len(cells) - 1)
    distance, neighbour = NearestNeighbors(n_neighbors=size).fit(cells).kneighbors()
    weight = _perplexity_weights(distance, min(perplexity, size / 3))
    share = (weight * is_fake[neighbour]).sum(axis=1)
    return float((1 / (share**2 + (1 - share) ** 2)).mean())


def _perplexity_weights(distance: np.ndarray, perplexity: float) -> np.ndarray:
    """Weights exp(-beta d) of each row, summing to 1, beta found by bisection so that their entropy is log(perplexity)."""
    low, high = np.full(len(distance), -30.0), np.full(len(distance), 30.0)  # log beta, in units of the row's mean distance
    scaled = (distance - distance[:, :1]) / np.maximum(distance.mean(axis=1, keepdims=True), np.finfo(float).tiny)
    for _ in range(60):
        middle = (low + high) / 2
        weight = np.exp(-np.exp(middle)[:, None] * scaled)
        weight /= weight.sum(axis=1, keepdims=True)
        too_flat = -(weight * np.log(np.maximum(weight, 1e-300))).sum(axis=1) > np.log(perplexity)
        low, high = np.where(too_flat, middle, low), np.where(too_flat, high, middle)
    return np.asarray(weight)


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of the synthetic cells among the real ones.

    A cell's ball reaches to its k-th nearest cell of its own set. precision: share of synthetic cells in some real ball.
    recall: share of real cells in some synthetic ball. density: mean number of real balls a synthetic cell lies in, over k.
    coverage: share of real balls with a synthetic cell in them. (Kynkaanniemi et al., NeurIPS 2019, arXiv:1904.06991;
    Naeem et al., ICML 2020, arXiv:2002.09797, eqs. 2-4.)

    Parameters
    ----------
    real, fake
        ``[cells, components]``, more than ``k`` cells each.

    Returns
    -------
    dict
        precision, recall, coverage in 0..1, higher is better; density 0 or more, 1 expected of real cells.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(100, 2))
    >>> precision_recall(cells, cells)["coverage"]
    1.0
    """
    between = cdist(real, fake)
    in_real_ball = between < _radii(real, k)[:, None]
    in_fake_ball = between < _radii(fake, k)
    return {
        "precision": float(in_real_ball.any(axis=0).mean()),
        "recall": float(in_fake_ball.any(axis=1).mean()),
        "density": float(in_real_ball.sum(axis=0).mean() / k),
        "coverage": float(in_real_ball.any(axis=1).mean()),
    }


def _radii(cells: np.ndarray, k: int) -> np.ndarray:
    return np.asarray(np.partition(cdist(cells, cells), k, axis=1)[:, k])  # the 0th nearest is the cell itself
