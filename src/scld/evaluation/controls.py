"""Negative controls: synthetic cells that are wrong in a known way, made from training cells.

A metric that scores one of them better than real cells is not informative on that dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import scipy.sparse as sp

from scld.evaluation.cells import Cells

BASELINE = "baseline"  # the dataset of real cells that are scored as the synthetic ones are
Control = Callable[[sp.csr_matrix, int, np.random.Generator], sp.csr_matrix]  # counts, n -> counts


def poisson(counts: sp.csr_matrix, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Independent Poisson counts with the mean of each gene in a type: cells do not vary.

    Parameters
    ----------
    counts
        ``[cells, genes]`` training cells of one type.
    n
        Number of cells to make.

    Examples
    --------
    >>> poisson(sp.csr_matrix([[4.0, 0.0], [2.0, 0.0]]), 3, np.random.default_rng(0)).shape
    (3, 2)
    """
    mean = np.asarray(counts.mean(axis=0, dtype=np.float64)).ravel()
    expressed = np.flatnonzero(mean)
    chunks = [
        rng.poisson(mean[expressed], (min(256, n - start), len(expressed)))
        for start in range(0, n, 256)
    ]
    cells = sp.csr_matrix(np.concatenate(chunks), dtype=np.float32)
    return _with_all_genes(cells, expressed, counts.shape[1])


def shuffle(counts: sp.csr_matrix, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Real counts, each gene shuffled between the cells of a type: no gene-gene correlation.

    Examples
    --------
    >>> counts = sp.csr_matrix([[4.0, 1.0], [2.0, 0.0]])
    >>> shuffle(counts, 2, np.random.default_rng(0)).sum(axis=0)
    matrix([[6., 1.]])
    """
    rows = rng.choice(counts.shape[0], n, replace=n > counts.shape[0])
    chosen = sp.csr_matrix(counts[rows])
    expressed = np.unique(chosen.indices)
    shuffled = rng.permuted(chosen[:, expressed].toarray(), axis=0)
    return _with_all_genes(sp.csr_matrix(shuffled), expressed, counts.shape[1])


def bootstrap(counts: sp.csr_matrix, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Copies of training cells, sampled with replacement: real cells without any privacy.

    Examples
    --------
    >>> bootstrap(sp.csr_matrix([[4.0, 1.0]]), 2, np.random.default_rng(0)).toarray()
    array([[4., 1.],
           [4., 1.]])
    """
    return sp.csr_matrix(counts[rng.integers(0, counts.shape[0], n)])


def _with_all_genes(cells: sp.csr_matrix, columns: np.ndarray, genes: int) -> sp.csr_matrix:
    parts = (cells.data, columns[cells.indices], cells.indptr)
    return sp.csr_matrix(parts, shape=(cells.shape[0], genes))


CONTROLS: dict[str, Control] = {"poisson": poisson, "shuffle": shuffle, "bootstrap": bootstrap}


def make_control(
    name: str, train: Cells, sizes: Mapping[int, int], rng: np.random.Generator
) -> Cells:
    """A negative control with ``sizes`` cells of each type, made from training cells."""
    assert train.counts is not None
    make = CONTROLS[name]
    of_types = [make(train.counts[train.codes == t], n, rng) for t, n in sizes.items()]
    codes = np.repeat(list(sizes), list(sizes.values()))
    return Cells.of_counts(sp.vstack(of_types, format="csr"), codes)
