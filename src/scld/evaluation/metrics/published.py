"""The metrics that scDiffusion and CFGen report, as they compute them, for comparison."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.spatial.distance import cdist, pdist, squareform

from scld.evaluation.metrics.distances import WIDTHS, wasserstein
from scld.evaluation.metrics.space import Space
from scld.preprocessing import principal_components


def scdiffusion_mmd(real: np.ndarray, synthetic: np.ndarray, seed: int = 0) -> float:
    """scDiffusion's MMD: biased, five Gaussian kernels summed, on a joint PCA.

    The PCA has 50 components and is fitted on real and synthetic cells together. The widths are
    the mean squared distance of all pooled pairs times 1/4, 1/2, 1, 2 and 4. (Luo et al.,
    Bioinformatics 40:btae518, 2024.)

    Parameters
    ----------
    real, synthetic
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
    pooled = np.concatenate([real, synthetic])
    fitted = principal_components(pooled, 50, seed)
    components = ((pooled - fitted.mean) @ fitted.loadings).astype(np.float64)
    squared = squareform(pdist(components, "sqeuclidean"))
    n = len(pooled)
    mean = squared.sum() / (n * n - n)
    return _biased_mmd(squared, len(real), mean * WIDTHS)


def cfgen_space(
    test_log: sp.csr_matrix, synthetic_log: sp.csr_matrix, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Test and synthetic cells in CFGen's space, fitted on the test cells.

    2,000 variable genes and 30 components. Both sets are centred on the test cells; CFGen's script
    does not centre the synthetic ones, which shifts every value that it reports.
    """
    space = Space.fit(test_log, seed=seed)
    test, synthetic = space.dense(test_log), space.dense(synthetic_log)
    return space.project(test), space.project(synthetic)


def cfgen_w2(test: np.ndarray, synthetic: np.ndarray) -> float:
    """CFGen's Wasserstein-2 of one type, in the space of `cfgen_space`; lower is better.

    (Palma et al., ICLR 2025, arXiv:2407.11734.)
    """
    return wasserstein(test, synthetic, 2)


def cfgen_mmd(test: np.ndarray, synthetic: np.ndarray) -> float:
    """CFGen's RBF-MMD of one type: biased, exp(-d^2 / 2 s^2) summed over s = .01, .1, 1, 10, 100.

    In 30 components only the two widest kernels respond; the others equal 2 / n. Lower is better.
    (Palma et al., ICLR 2025, arXiv:2407.11734.)

    Examples
    --------
    >>> abs(cfgen_mmd(np.zeros((3, 2)), np.zeros((3, 2)))) < 1e-9
    True
    """
    n = min(len(test), len(synthetic))
    pooled = np.concatenate([test[:n], synthetic[:n]])
    widths = 2 * np.array([0.01, 0.1, 1, 10, 100]) ** 2
    return _biased_mmd(cdist(pooled, pooled, "sqeuclidean"), n, widths)


def _biased_mmd(squared: np.ndarray, n_real: int, widths: np.ndarray) -> float:
    """v' K v summed over kernels, v being 1 / cells of the set, negative for synthetic cells."""
    is_real = np.arange(len(squared)) < n_real
    sign = np.where(is_real, 1 / n_real, -1 / (len(squared) - n_real))
    return float(sum(sign @ np.exp(-squared / width) @ sign for width in widths))
