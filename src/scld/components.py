"""Principal components of counts, log-normalised, without a dense copy of them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def log_normalised(counts: sp.csr_matrix, library: float | np.ndarray) -> sp.csr_matrix:
    """log(1 + counts scaled to a library size), float32.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> np.expm1(log_normalised(sp.csr_matrix([[1.0, 3.0]]), 8.0).toarray()).round(5).tolist()
    [[2.0, 6.0]]
    """
    totals = np.repeat(np.asarray(counts.sum(axis=1)).ravel(), np.diff(counts.indptr))
    return sp.csr_matrix((np.log1p(counts.data * (library / totals)).astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


def principal_components(matrix: sp.csr_matrix, most: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first components of cells ``[cells, genes]``: as many as asked for or as there can be, and none where no cell differs from another.

    Returns
    -------
    tuple
        Loadings ``[genes, components]``, means ``[genes]``, variances ``[components]``.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> loadings, mean, variance = principal_components(sp.csr_matrix([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]]), most=1)
    >>> abs(loadings).round(5).tolist(), mean.tolist(), variance.round(5).tolist()
    ([[1.0], [0.0]], [3.0, 0.0], [4.0])
    """
    from sklearn.decomposition import PCA

    count = min(most, min(matrix.shape) - 1)
    if count < 1 or not (matrix.max(axis=0) - matrix.min(axis=0)).nnz:
        return np.zeros((matrix.shape[1], 0), np.float32), np.asarray(matrix.mean(axis=0)).ravel(), np.zeros(0, np.float32)
    pca = PCA(count, svd_solver="arpack", random_state=seed % 2**32).fit(matrix)
    return pca.components_.T, pca.mean_, pca.explained_variance_
