"""The trivial fakes. A score that prefers one of them to real cells says nothing on that data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

Fake = Callable[[sp.csr_matrix, int, np.random.Generator], sp.csr_matrix]  # counts of one type, cells wanted -> counts


def poisson(counts: sp.csr_matrix, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Cells of one type from independent Poisson distributions with the type's mean counts: no variation between cells.

    Parameters
    ----------
    counts
        ``[cells, genes]`` training cells of one type.
    n
        How many to make.

    Examples
    --------
    >>> poisson(sp.csr_matrix([[4.0, 0.0], [2.0, 0.0]]), 3, np.random.default_rng(0)).shape
    (3, 2)
    """
    mean = np.asarray(counts.mean(axis=0, dtype=np.float64)).ravel()
    expressed = np.flatnonzero(mean)
    chunks = [rng.poisson(mean[expressed], (min(256, n - start), len(expressed))) for start in range(0, n, 256)]
    return _widen(sp.csr_matrix(np.concatenate(chunks), dtype=np.float32), expressed, counts.shape[1])


def shuffle(counts: sp.csr_matrix, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Cells of one type whose genes were shuffled between cells, each gene apart: every gene right, no two together.

    Examples
    --------
    >>> shuffle(sp.csr_matrix([[4.0, 1.0], [2.0, 0.0]]), 2, np.random.default_rng(0)).sum(axis=0)
    matrix([[6., 1.]])
    """
    rows = rng.choice(counts.shape[0], n, replace=n > counts.shape[0])
    chosen = sp.csr_matrix(counts[rows])
    expressed = np.unique(chosen.indices)
    return _widen(sp.csr_matrix(rng.permuted(chosen[:, expressed].toarray(), axis=0)), expressed, counts.shape[1])


def bootstrap(counts: sp.csr_matrix, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Copies of training cells, drawn with replacement: as good as real on every figure but those of privacy.

    Examples
    --------
    >>> bootstrap(sp.csr_matrix([[4.0, 1.0]]), 2, np.random.default_rng(0)).toarray()
    array([[4., 1.],
           [4., 1.]])
    """
    return sp.csr_matrix(counts[rng.integers(0, counts.shape[0], n)])


def _widen(cells: sp.csr_matrix, columns: np.ndarray, width: int) -> sp.csr_matrix:
    return sp.csr_matrix((cells.data, columns[cells.indices], cells.indptr), shape=(cells.shape[0], width))
