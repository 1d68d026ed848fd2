"""Gene by gene: level, variability and detection; and the correlations between genes."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics.space import column_moments


def gene_moments(log: sp.csr_matrix) -> dict[str, np.ndarray]:
    """Mean, variance and detection rate of each gene.

    Parameters
    ----------
    log
        ``[cells, genes]`` log-normalised.

    Returns
    -------
    dict
        ``mean``, ``variance`` and ``detection`` (share of cells above 0), ``[genes]`` each.

    Examples
    --------
    >>> gene_moments(sp.csr_matrix([[0.0, 2.0], [0.0, 4.0]]))["detection"]
    array([0., 1.])
    """
    mean, variance = column_moments(log)
    detection = np.asarray((log > 0).mean(axis=0)).ravel()
    return {"mean": mean, "variance": variance, "detection": detection}


def rmse(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Root mean square error, 0 or more; lower is better.

    Examples
    --------
    >>> rmse(np.array([0.0, 0.0]), np.array([3.0, 3.0]))
    3.0
    """
    return float(np.sqrt(np.mean((np.asarray(real) - synthetic) ** 2)))


def detection_gap(real: np.ndarray, synthetic: np.ndarray, worst: int = 10) -> float:
    """Mean absolute difference of detection rates over the genes where it is largest.

    A root mean square over ten thousand genes hides the few that matter, such as a hormone
    detected in every real cell of a type and in 94% of the synthetic ones.

    Parameters
    ----------
    real, synthetic
        ``[genes]`` detection rates.
    worst
        Number of genes to average over.

    Returns
    -------
    float
        From 0 to 1; lower is better.

    Examples
    --------
    >>> real, synthetic = np.array([0.5, 0.5, 1.0]), np.array([0.5, 0.5, 0.9])
    >>> round(detection_gap(real, synthetic, worst=1), 3)
    0.1
    """
    return float(np.sort(np.abs(np.asarray(real) - synthetic))[-worst:].mean())


def ks(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance: the largest difference of two cumulative distributions.

    From 0 to 1; lower is better. Used for library sizes and genes per cell.

    Examples
    --------
    >>> float(ks(np.array([1.0, 2.0]), np.array([3.0, 4.0])))
    1.0
    """
    from scipy.stats import ks_2samp

    return float(ks_2samp(real, synthetic, method="asymp").statistic)


def correlation_agreement(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Pearson correlation between the gene-gene correlations of real and synthetic cells.

    1: genes are correlated as in real cells. 0: not at all, as where genes are independent.

    Parameters
    ----------
    real, synthetic
        ``[cells, genes]`` log-normalised, cells of one type.

    Returns
    -------
    float
        From -1 to 1; higher is better. Genes that are constant in either set have correlation 0.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> cells = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    >>> correlation_agreement(cells[:250], cells[250:]) > 0.9
    True
    """
    above = np.triu_indices(real.shape[1], 1)
    a, b = correlations(real)[above], correlations(synthetic)[above]
    vary = a.std() > 0 and b.std() > 0
    return float(np.corrcoef(a, b)[0, 1]) if vary else 0.0


def correlations(cells: np.ndarray) -> np.ndarray:
    """Gene-gene correlation matrix ``[genes, genes]``, 0 where a gene is constant."""
    centred = cells - cells.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    unit = centred / np.where(norm > 0, norm, 1)
    return np.asarray(unit.T @ unit, dtype=np.float64)
