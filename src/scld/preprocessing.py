"""Log-normalisation, principal components and splits: what training and evaluation share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.schema import label_column

TARGET_SUM = 1e4  # counts per cell after normalisation, unless another number is given


def log_normalise(counts: sp.csr_matrix, target_sum: float = TARGET_SUM) -> sp.csr_matrix:
    """Scale each cell to the same total count, then take log(1 + x).

    Parameters
    ----------
    counts
        ``[cells, genes]`` raw counts without empty cells.
    target_sum
        Total count of a cell after scaling.

    Returns
    -------
    scipy.sparse.csr_matrix
        ``[cells, genes]`` float32, natural logarithm.

    Examples
    --------
    >>> log_normalise(sp.csr_matrix([[1.0, 3.0]])).toarray().round(2)
    array([[7.82, 8.92]], dtype=float32)
    """
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = counts.data.astype(np.float64)  # in place from here on: these arrays are large
    scaled *= np.repeat(target_sum / totals, np.diff(counts.indptr))
    values = np.log1p(scaled, out=scaled).astype(np.float32)
    return sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


class Components(NamedTuple):
    """Principal components of some cells."""

    loadings: np.ndarray  # [genes, components]
    mean: np.ndarray  # [genes]
    variance: np.ndarray  # [components]


def principal_components(
    matrix: sp.csr_matrix | np.ndarray, n_components: int, seed: int = 0
) -> Components:
    """Fit a centred PCA without making a sparse matrix dense.

    Parameters
    ----------
    matrix
        ``[cells, genes]``, sparse or dense.
    n_components
        Largest number of components. Fewer are returned for small matrices, and none if all cells
        are equal.
    seed
        Seed of the solver.

    Examples
    --------
    >>> fitted = principal_components(sp.csr_matrix([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]]), 1)
    >>> abs(fitted.loadings).round(5).tolist(), fitted.mean.tolist()
    ([[1.0], [0.0]], [3.0, 0.0])
    """
    sparse = sp.issparse(matrix)
    cells, genes = matrix.shape
    count = min(n_components, cells - 1, genes - 1 if sparse else genes)
    if count < 1 or not _cells_differ(matrix):
        mean = np.asarray(matrix.mean(axis=0)).ravel()
        return Components(np.zeros((genes, 0), np.float32), mean, np.zeros(0, np.float32))
    pca = _fitted_pca(matrix, count, seed)
    return Components(pca.components_.T, pca.mean_, pca.explained_variance_)


def _fitted_pca(matrix: Any, count: int, seed: int) -> Any:
    from scipy.sparse.linalg import ArpackError
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    pca = PCA(count, svd_solver="randomized", random_state=seed % 2**32)
    with threadpool_limits(1, user_api="blas"):  # its rounding depends on the number of threads
        if isinstance(matrix, np.ndarray):
            return pca.fit(matrix)
        try:
            return pca.set_params(svd_solver="arpack").fit(matrix)
        except ArpackError:  # cells that differ by little more than rounding
            return pca.set_params(svd_solver="randomized").fit(matrix.toarray())


def _cells_differ(matrix: Any) -> bool:
    highest, lowest = matrix.max(axis=0), matrix.min(axis=0)
    if isinstance(matrix, np.ndarray):
        return bool((highest != lowest).any())
    return int((highest - lowest).count_nonzero()) > 0


def split_rows(groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Set a share of the cells of each group aside at random.

    Parameters
    ----------
    groups
        ``[cells]`` group of each cell; no cell of group -1 is set aside.
    share
        Share of each group to set aside.
    seed
        Same seed, same split.

    Returns
    -------
    tuple of numpy.ndarray
        Rows that are kept and rows that are set aside, both in ascending order.

    Examples
    --------
    >>> kept, aside = split_rows(np.array([0, 0, 1, 1, -1]), 0.5, seed=0)
    >>> len(aside), 4 in kept
    (2, True)
    """
    rng, aside = np.random.default_rng(seed), np.zeros(len(groups), dtype=bool)
    for group in np.unique(groups[groups >= 0]):
        rows = rng.permutation(np.flatnonzero(groups == group))
        aside[rows[: round(share * len(rows))]] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)


def permuted(obs: pd.DataFrame, column: str, within: str | None = None, seed: int = 0) -> pd.Series:
    """A label with its values permuted over the cells, for a null without any difference.

    Parameters
    ----------
    obs
        One row per cell.
    column
        The label.
    within
        A column that cells exchange values within, such as the donor; all cells if None.
    seed
        Same seed, same values.

    Examples
    --------
    >>> obs = pd.DataFrame({"group": list("abab"), "donor": [1, 1, 2, 2]})
    >>> sorted(permuted(obs, "group", within="donor")[:2])
    ['a', 'b']
    """
    values, rng = label_column(obs, column).copy(), np.random.default_rng(seed)
    groups = np.zeros(len(obs)) if within is None else pd.factorize(label_column(obs, within))[0]
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        values.iloc[rows] = values.iloc[rng.permutation(rows)].array
    return values
