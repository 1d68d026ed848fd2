"""Checks that a matrix of counts passes or fails, whatever its quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp


def validity(
    cells: sp.csr_matrix,
    genes: Sequence[str],
    labels: Sequence[str],
    train_libraries: np.ndarray,
    train_genes: Sequence[str],
    train_labels: Sequence[str],
) -> dict[str, bool]:
    """Whether cells could be raw counts of the same genes and types as the training cells.

    Parameters
    ----------
    cells
        ``[cells, genes]``, as generated.
    genes, train_genes
        Gene names, in order.
    labels, train_labels
        The label of each cell, empty without labels.
    train_libraries
        ``[training cells]`` counts per cell.

    Returns
    -------
    dict
        ``integers``, ``non_negative``, ``finite``, ``gene_order``, ``known_labels``,
        ``every_label`` (no type of training is missing), ``no_empty_cell``, ``library_range``
        (no cell above twice or below half the training extremes).

    Examples
    --------
    >>> cells = sp.csr_matrix([[1.0, 0.5]])
    >>> passed = validity(cells, ["A", "B"], [], np.array([2.0]), ["A", "B"], [])
    >>> [name for name, ok in passed.items() if not ok]
    ['integers']
    """
    libraries = np.asarray(cells.sum(axis=1)).ravel()
    finite = np.isfinite(cells.data)
    values = cells.data[finite]
    not_too_large = libraries <= 2 * train_libraries.max()
    not_too_small = libraries >= train_libraries.min() / 2
    return {
        "integers": bool((values == np.rint(values)).all()),
        "non_negative": bool((values >= 0).all()),
        "finite": bool(finite.all()),
        "gene_order": list(genes) == list(train_genes),
        "known_labels": set(labels) <= set(train_labels),
        "every_label": set(labels) >= set(train_labels),
        "no_empty_cell": bool((np.diff(cells.indptr) > 0).all()),
        "library_range": bool((not_too_large & not_too_small).all()),
    }
