"""The space in which cells are compared: log-normalised variable genes and their components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from scld.preprocessing import principal_components


def column_moments(log: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each gene ``[genes]``."""
    mean = np.asarray(log.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(log.multiply(log).mean(axis=0, dtype=np.float64)).ravel()
    return mean, np.maximum(square - mean**2, 0)


@dataclass(frozen=True)
class Space:
    """Variable genes, their scaler and a centred PCA, all fitted on one set of cells.

    The mean of the fitted cells is subtracted from every set that is projected: without that, real
    cells look several times further from real cells than they are.

    Parameters
    ----------
    genes
        ``[2000]`` columns of the most variable genes.
    mean, scale
        ``[2000]`` mean and standard deviation in the fitted cells.
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
    def fit(
        cls, log: sp.csr_matrix, n_genes: int = 2000, n_components: int = 30, seed: int = 0
    ) -> Space:
        """Choose the genes of largest variance, and the axes of largest variance among them."""
        mean, variance = column_moments(log)
        varying = int((variance > 0).sum())
        genes = np.sort(np.argsort(-variance, kind="stable")[: min(n_genes, varying)])
        fitted = principal_components(log[:, genes].toarray(), n_components, seed)
        return cls(
            genes,
            mean[genes].astype(np.float32),
            np.sqrt(variance[genes]).astype(np.float32),
            fitted.loadings.T.astype(np.float32),
        )

    def dense(self, log: sp.csr_matrix) -> np.ndarray:
        """``[cells, genes]`` of all genes -> ``[cells, 2000]`` float32."""
        return np.asarray(log[:, self.genes].toarray(), dtype=np.float32)

    def standardise(self, dense: np.ndarray) -> np.ndarray:
        """Variable genes -> the same with mean 0 and standard deviation 1 in the fitted cells."""
        return np.asarray((dense - self.mean) / self.scale)

    def project(self, dense: np.ndarray) -> np.ndarray:
        """Variable genes ``[cells, 2000]`` -> principal components ``[cells, 30]``."""
        return np.asarray((dense - self.mean) @ self.components.T, dtype=np.float64)
