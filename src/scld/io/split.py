"""Cells -> training and test cells."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.errors import DataError, RequestError, listed
from scld.io.read import read_all
from scld.preprocessing import split_rows
from scld.schema import Schema

if TYPE_CHECKING:
    from anndata import AnnData


def split(
    source: AnnData | str | os.PathLike[str],
    label: str,
    *,
    by: str | None = None,
    test: float = 0.3,
    seed: int = 0,
) -> tuple[AnnData, AnnData]:
    """Split cells into training and test cells.

    Parameters
    ----------
    source
        An AnnData, or the path of an ``.h5ad`` file or ``.zarr`` store. All that it holds is kept.
    label
        The obs column of cell types. The share holds within each type; cells without one are split
        among themselves.
    by
        An obs column, such as the donor, whose groups of cells are not divided: each goes to one
        side. The share then holds as well as the groups allow.
    test
        Share of the cells to test with, above 0 and below 1.
    seed
        Same seed, same split.

    Returns
    -------
    tuple of AnnData
        Training cells and test cells.

    Raises
    ------
    DataError
        A missing column, or fewer than two groups in ``by``.
    RequestError
        A share that is not between 0 and 1.

    Examples
    --------
    >>> import scld
    >>> train, test = scld.split(scld.datasets.pbmc(), "cell_type")
    >>> train.n_obs, test.n_obs
    (1752, 749)
    """
    if not 0 < test < 1:
        raise RequestError(f"test: got {test!r}; allowed is a share between 0 and 1, such as 0.3")
    cells = read_all(source)
    types = Schema.of(cells.obs, [label]).codes(cells.obs)[:, 0]
    if by is None:
        kept, aside = split_rows(types - types.min(), test, seed)
    else:
        kept, aside = _whole_groups(_groups(cells, by), test, seed)
        _warn_of_lost_types(cells, label, types, kept, aside)
    return cells[kept].copy(), cells[aside].copy()


def _groups(cells: AnnData, by: str) -> np.ndarray:
    """The group of each cell, which must have one."""
    groups = Schema.of(cells.obs, [by]).codes(cells.obs)[:, 0]
    missing, number = int((groups < 0).sum()), len(np.unique(groups))
    if missing:
        advice = "remove these cells, or name the group"
        raise DataError(f"by: {missing:,} cells have no value of {by!r}; {advice}")
    if number < 2:
        advice = "two are needed; leave by out to split the cells within each type"
        raise DataError(f"by: {by!r} has one category only; {advice}")
    return groups


def _whole_groups(groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups in random order, as many for the test as come nearest to the share of the cells."""
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(sizes))
    reached = np.cumsum(sizes[order])[:-1] / len(groups)  # one group at least is left for training
    number = int(np.argmin(np.abs(reached - share))) + 1
    is_test = np.isin(groups, order[:number])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _warn_of_lost_types(
    cells: AnnData, label: str, types: np.ndarray, kept: np.ndarray, aside: np.ndarray
) -> None:
    """Types of which one side has no cell."""
    for side, rows, other in (("training", kept, aside), ("test", aside, kept)):
        lost: Any = np.setdiff1d(types[other], types[rows])
        if len(lost):
            names = sorted(
                cells.obs[label].iloc[other][types[other] == t].astype(str).iloc[0] for t in lost
            )
            seen = f"no {side} cell is of {listed(names)}"
            warnings.warn(f"split: {seen}; another seed divides the groups otherwise", stacklevel=3)
