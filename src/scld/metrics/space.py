"""Where cells are compared: log-normalised genes, their variable ones, their principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

TARGET = 1e4  # counts a cell after normalisation


def log_normalise(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Each cell scaled to 10,000 counts, then log(1 + x).

    Parameters
    ----------
    counts
        ``[cells, genes]`` raw counts, no empty cell.

    Returns
    -------
    scipy.sparse.csr_matrix
        ``[cells, genes]`` float32, natural logarithm.

    Examples
    --------
    >>> log_normalise(sp.csr_matrix([[1.0, 3.0]])).toarray().round(2)
    array([[7.82, 8.92]], dtype=float32)
    """
    scaled = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    scaled.data *= np.repeat(TARGET / np.asarray(counts.sum(axis=1)).ravel(), np.diff(scaled.indptr))
    return sp.csr_matrix((np.log1p(scaled.data).astype(np.float32), scaled.indices, scaled.indptr), shape=scaled.shape)


def column_moments(log: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each gene ``[genes]``."""
    mean = np.asarray(log.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(log.multiply(log).mean(axis=0, dtype=np.float64)).ravel()
    return mean, np.maximum(square - mean**2, 0)


@dataclass(frozen=True)
class Space:
    """Variable genes, their scaler and a centred PCA, all fitted on one set of cells.

    An uncentred projection makes real against real look several times worse, so the mean of the fitted cells is
    taken off every set that is projected.

    Parameters
    ----------
    genes
        ``[2000]`` columns of the most variable genes.
    mean, scale
        ``[2000]`` of the fitted cells.
    components
        ``[30, 2000]`` principal axes.

    Examples
    --------
    >>> cells = sp.random(60, 40, density=0.5, format="csr", random_state=0)
    >>> space = Space.fit(cells, n_components=5)
    >>> bool(np.allclose(space.project(space.dense(cells)).mean(axis=0), 0, atol=1e-4))
    True
    """

    genes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, log: sp.csr_matrix, n_genes: int = 2000, n_components: int = 30, seed: int = 0) -> Space:
        """Choose the genes of largest variance, and the axes of largest variance among them."""
        from sklearn.decomposition import PCA

        mean, variance = column_moments(log)
        genes = np.sort(np.argsort(-variance, kind="stable")[: min(n_genes, int((variance > 0).sum()))])
        size = min(n_components, len(genes), log.shape[0] - 1)
        pca = PCA(size, svd_solver="randomized", random_state=seed).fit(log[:, genes].toarray())
        return cls(genes, mean[genes].astype(np.float32), np.sqrt(variance[genes]).astype(np.float32), pca.components_.astype(np.float32))

    def dense(self, log: sp.csr_matrix) -> np.ndarray:
        """``[cells, genes]`` of all genes -> ``[cells, 2000]`` float32."""
        return np.asarray(log[:, self.genes].toarray(), dtype=np.float32)

    def standardise(self, dense: np.ndarray) -> np.ndarray:
        """Variable genes -> the same with the fitted cells' mean 0 and standard deviation 1."""
        return np.asarray((dense - self.mean) / self.scale)

    def project(self, dense: np.ndarray) -> np.ndarray:
        """Variable genes ``[cells, 2000]`` -> principal components ``[cells, 30]``."""
        return np.asarray((dense - self.mean) @ self.components.T, dtype=np.float64)
