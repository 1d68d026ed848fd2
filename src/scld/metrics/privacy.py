"""Memorisation: are synthetic cells nearer to the cells that were learnt from than to others?"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from scld.metrics.c2st import auc


def nearest_distance(cells: np.ndarray, others: np.ndarray, rank: int = 0) -> np.ndarray:
    """Euclidean distance ``[cells]`` from each cell to the nearest of the others, or to the one ``rank`` places behind it."""
    from sklearn.neighbors import NearestNeighbors

    return np.asarray(NearestNeighbors(n_neighbors=rank + 1).fit(others).kneighbors(cells)[0][:, rank])


def nearer_training(to_train: np.ndarray, to_held_out: np.ndarray) -> float:
    """Share of synthetic cells whose nearest real cell is a training cell rather than a held-out one; ties count half.

    .5: no memory of the training cells. 1: every synthetic cell sits on a training cell. (The "share of records closer to training than to
    holdout" of Platzer and Reutterer, Front. Big Data 4:679939, 2021.)

    Parameters
    ----------
    to_train, to_held_out
        ``[cells]`` `nearest_distance` to equally many training and held-out cells of the same composition, in components
        fitted on both together: fitted on the training cells alone they favour them.

    Returns
    -------
    float
        In 0..1; .5 is ideal.

    Examples
    --------
    >>> nearer_training(np.array([0.1, 3.0]), np.array([5.0, 3.0]))
    0.75
    """
    return float(((to_train < to_held_out) + (to_train == to_held_out) / 2).mean())


def exact_copies(synthetic: sp.csr_matrix, train: sp.csr_matrix) -> float:
    """Share of synthetic cells that equal a training cell in every gene.

    Parameters
    ----------
    synthetic, train
        ``[cells, genes]``, raw counts, or log-normalised values rounded alike.

    Returns
    -------
    float
        In 0..1; 0 is ideal.

    Examples
    --------
    >>> exact_copies(sp.csr_matrix([[1.0, 0.0], [0.0, 2.0]]), sp.csr_matrix([[0.0, 2.0]]))
    0.5
    """
    known = set(_fingerprints(train))
    return float(np.mean([cell in known for cell in _fingerprints(synthetic)]))


def repeated_cells(cells: sp.csr_matrix) -> float:
    """Share of a set's cells that equal an earlier one of the same set: cells handed out again, or a generator that knows few.

    Parameters
    ----------
    cells
        ``[cells, genes]``.

    Returns
    -------
    float
        In 0..1; 0 is ideal.

    Examples
    --------
    >>> repeated_cells(sp.csr_matrix([[1.0], [2.0], [1.0], [1.0]]))
    0.5
    """
    marks = _fingerprints(cells)
    return 1 - len(set(marks)) / len(marks)


def _fingerprints(cells: sp.csr_matrix) -> list[bytes]:
    cells = sp.csr_matrix(cells, dtype=np.float32, copy=True)
    cells.sum_duplicates()
    cells.eliminate_zeros()
    spans = zip(cells.indptr[:-1], cells.indptr[1:], strict=True)
    return [cells.indices[a:b].astype(np.int32).tobytes() + cells.data[a:b].tobytes() for a, b in spans]


def membership_auc(synthetic: np.ndarray, members: np.ndarray, others: np.ndarray) -> float:
    """Membership inference: AUC of an attacker who calls a cell a training cell if some synthetic cell is near it.

    .5: the attacker learns nothing. (The distance attack of Hayes et al., LOGAN, arXiv:1705.07663, and Chen et al.,
    GAN-Leaks, arXiv:1909.03935, eq. 2, without access to the model.)

    Parameters
    ----------
    synthetic, members, others
        ``[cells, components]``: synthetic, training and held-out cells.

    Returns
    -------
    float
        In 0..1; .5 is ideal.

    Examples
    --------
    >>> membership_auc(np.array([[0.0]]), np.array([[0.1]]), np.array([[5.0]]))
    1.0
    """
    return auc(-nearest_distance(members, synthetic), -nearest_distance(others, synthetic))


def donor_membership_auc(distance: np.ndarray, codes: np.ndarray, donor: np.ndarray, member: np.ndarray) -> float:
    """Membership inference by donor: the attacker averages the distances of all cells of a donor.

    Parameters
    ----------
    distance
        ``[cells]`` from each real cell to the nearest synthetic one.
    codes
        ``[cells]`` types; distances are compared within a type, so that a donor with many cells of a loose type is not blamed for it.
    donor
        ``[cells]`` donor of each cell.
    member
        ``[cells]`` True where the donor was in training; the same for all cells of a donor.

    Returns
    -------
    float
        In 0..1; .5 is ideal. With few donors it takes few values: 2 against 2 donors give 0, .25, .5, .75 or 1.

    Examples
    --------
    >>> donor_membership_auc(np.array([0.1, 0.2, 0.9]), np.zeros(3), np.array(["a", "a", "b"]), np.array([True, True, False]))
    1.0
    """
    import pandas as pd

    cells = pd.DataFrame({"distance": distance, "type": codes, "donor": np.asarray(donor).astype(str), "member": member})
    cells["nearness"] = cells.groupby("type")["distance"].transform("mean") - cells["distance"]
    donors = cells.groupby("donor").agg(nearness=("nearness", "mean"), member=("member", "first"))
    return auc(donors["nearness"][donors["member"]].to_numpy(), donors["nearness"][~donors["member"]].to_numpy())
