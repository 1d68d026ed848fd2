"""Privacy: are synthetic cells copies of, or nearer to, the cells that were trained on?"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics.two_sample import auc


def nearest_distance(cells: np.ndarray, others: np.ndarray, rank: int = 0) -> np.ndarray:
    """Euclidean distance ``[cells]`` from each cell to the nearest of the others.

    ``rank`` 1 gives the second nearest, for cells that are among the others themselves.
    """
    from sklearn.neighbors import NearestNeighbors

    fitted = NearestNeighbors(n_neighbors=rank + 1).fit(others)
    return np.asarray(fitted.kneighbors(cells)[0][:, rank])


def nearer_training(to_train: np.ndarray, to_held_out: np.ndarray) -> float:
    """Share of synthetic cells whose nearest real cell is a training cell, not a test cell.

    Ties count half. 0.5: no memorisation. 1: every synthetic cell is nearest to a training cell.
    (The "share of records closer to training than to holdout" of Platzer and Reutterer, Front. Big
    Data 4:679939, 2021.)

    Parameters
    ----------
    to_train, to_held_out
        ``[cells]`` `nearest_distance` to equally many training and test cells of the same
        composition, in components fitted on both together: components fitted on the training
        cells alone favour them.

    Returns
    -------
    float
        From 0 to 1; 0.5 is ideal.

    Examples
    --------
    >>> nearer_training(np.array([0.1, 3.0]), np.array([5.0, 3.0]))
    0.75
    """
    nearer, tied = to_train < to_held_out, to_train == to_held_out
    return float((nearer + tied / 2).mean())


def exact_copies(synthetic: sp.csr_matrix, train: sp.csr_matrix) -> float:
    """Share of synthetic cells that equal a training cell in every gene.

    Parameters
    ----------
    synthetic, train
        ``[cells, genes]``, raw counts, or log-normalised values with the same rounding.

    Returns
    -------
    float
        From 0 to 1; 0 is ideal.

    Examples
    --------
    >>> exact_copies(sp.csr_matrix([[1.0, 0.0], [0.0, 2.0]]), sp.csr_matrix([[0.0, 2.0]]))
    0.5
    """
    known = set(_row_bytes(train))
    return float(np.mean([cell in known for cell in _row_bytes(synthetic)]))


def repeated_cells(cells: sp.csr_matrix) -> float:
    """Share of the cells of a set that equal an earlier cell of the same set.

    Parameters
    ----------
    cells
        ``[cells, genes]``.

    Returns
    -------
    float
        From 0 to 1; 0 is ideal.

    Examples
    --------
    >>> repeated_cells(sp.csr_matrix([[1.0], [2.0], [1.0], [1.0]]))
    0.5
    """
    rows = _row_bytes(cells)
    return 1 - len(set(rows)) / len(rows)


def _row_bytes(cells: sp.csr_matrix) -> list[bytes]:
    """Genes and values of each cell as bytes: equal for equal cells."""
    cells = sp.csr_matrix(cells, dtype=np.float32, copy=True)
    cells.sum_duplicates()
    cells.eliminate_zeros()
    genes, values = cells.indices.astype(np.int32), cells.data
    spans = zip(cells.indptr[:-1], cells.indptr[1:], strict=True)
    return [genes[start:end].tobytes() + values[start:end].tobytes() for start, end in spans]


def membership_auc(synthetic: np.ndarray, members: np.ndarray, others: np.ndarray) -> float:
    """Membership inference: AUC of an attacker who scores a cell by its nearest synthetic cell.

    0.5: the attacker learns nothing. (The distance attack of Hayes et al., LOGAN,
    arXiv:1705.07663, and Chen et al., GAN-Leaks, arXiv:1909.03935, eq. 2, without access to the
    model.)

    Parameters
    ----------
    synthetic, members, others
        ``[cells, components]``: synthetic, training and test cells.

    Returns
    -------
    float
        From 0 to 1; 0.5 is ideal.

    Examples
    --------
    >>> membership_auc(np.array([[0.0]]), np.array([[0.1]]), np.array([[5.0]]))
    1.0
    """
    return auc(-nearest_distance(members, synthetic), -nearest_distance(others, synthetic))


def donor_membership_auc(
    distance: np.ndarray, codes: np.ndarray, donor: np.ndarray, member: np.ndarray
) -> float:
    """Membership inference by donor: the attacker averages the distances of a donor's cells.

    Parameters
    ----------
    distance
        ``[cells]`` from each real cell to the nearest synthetic one.
    codes
        ``[cells]`` types. Distances are compared within a type, so that a donor with many cells of
        a variable type does not appear distant.
    donor
        ``[cells]`` donor of each cell.
    member
        ``[cells]`` True where the donor was in training; the same for all cells of a donor.

    Returns
    -------
    float
        From 0 to 1; 0.5 is ideal. With few donors it takes few values: 2 against 2 donors give 0,
        0.25, 0.5, 0.75 or 1.

    Examples
    --------
    >>> distance, donor = np.array([0.1, 0.2, 0.9]), np.array(["a", "a", "b"])
    >>> donor_membership_auc(distance, np.zeros(3), donor, np.array([True, True, False]))
    1.0
    """
    import pandas as pd

    names = np.asarray(donor).astype(str)
    cells = pd.DataFrame({"distance": distance, "type": codes, "donor": names, "member": member})
    cells["nearness"] = cells.groupby("type")["distance"].transform("mean") - cells["distance"]
    donors = cells.groupby("donor").agg(nearness=("nearness", "mean"), member=("member", "first"))
    nearness, is_member = donors["nearness"], donors["member"]
    return auc(nearness[is_member].to_numpy(), nearness[~is_member].to_numpy())
