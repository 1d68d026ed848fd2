"""The scores that scDiffusion and CFGen publish, as they compute them, for comparison with their tables only."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.spatial.distance import cdist, pdist, squareform

from scld.metrics.distances import wasserstein
from scld.metrics.space import Space


def scdiffusion_mmd(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> float:
    """scDiffusion's MMD (Luo et al., Bioinformatics 40:btae518, 2024): biased, five Gaussians summed, on a joint PCA.

    The PCA has 50 components and is fitted on real and synthetic cells together; the widths are the mean squared distance of all pooled
    pairs times 1/4, 1/2, 1, 2, 4.

    Parameters
    ----------
    real, fake
        ``[cells, genes]`` log-normalised.

    Returns
    -------
    float
        0 or more; lower is better.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(40, 60))
    >>> abs(scdiffusion_mmd(cells, cells)) < 1e-9
    True
    """
    from sklearn.decomposition import PCA

    pooled = np.concatenate([real, fake])
    components = PCA(min(50, *pooled.shape), svd_solver="randomized", random_state=seed).fit_transform(pooled).astype(np.float64)
    distances = squareform(pdist(components, "sqeuclidean"))
    n = len(pooled)
    return _biased_mmd(distances, len(real), distances.sum() / (n * n - n) * np.array([0.25, 0.5, 1, 2, 4]))


def cfgen_space(test_log: sp.csr_matrix, fake_log: sp.csr_matrix, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Test and synthetic cells in CFGen's space: 2,000 variable genes and 30 components, both fitted on the test cells.

    Both sets are centred on the test cells; CFGen's script leaves the synthetic ones uncentred, which shifts every value that it prints.
    """
    space = Space.fit(test_log, seed=seed)
    return space.project(space.dense(test_log)), space.project(space.dense(fake_log))


def cfgen_w2(test: np.ndarray, fake: np.ndarray) -> float:
    """CFGen's W2 of one type (Palma et al., ICLR 2025, arXiv:2407.11734), in the space of `cfgen_space`; lower is better."""
    return wasserstein(test, fake, 2)


def cfgen_mmd(test: np.ndarray, fake: np.ndarray) -> float:
    """CFGen's RBF-MMD of one type (arXiv:2407.11734): biased, exp(-d^2 / 2 s^2) summed over s = .01, .1, 1, 10, 100.

    In 30 components only the two widest kernels see anything; the others answer 2 / n. Lower is better.

    Examples
    --------
    >>> abs(cfgen_mmd(np.zeros((3, 2)), np.zeros((3, 2)))) < 1e-9
    True
    """
    n = min(len(test), len(fake))
    pooled = np.concatenate([test[:n], fake[:n]])
    return _biased_mmd(cdist(pooled, pooled, "sqeuclidean"), n, 2 * np.array([0.01, 0.1, 1, 10, 100]) ** 2)


def _biased_mmd(distances: np.ndarray, n_real: int, widths: np.ndarray) -> float:
    sign = np.where(np.arange(len(distances)) < n_real, 1 / n_real, -1 / (len(distances) - n_real))
    return float(sum(sign @ np.exp(-distances / width) @ sign for width in widths))
