"""Halves and samples of equal composition: which rows are compared with which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Sizes = dict[int, int]  # type -> number of cells


def common_sizes(available: Sequence[np.ndarray], most: int) -> Sizes:
    """Cells of each type that every dataset has, at most ``most`` in all, in proportion.

    Types that some dataset lacks are left out.

    Parameters
    ----------
    available
        ``[types]`` number of cells of each type, one array per dataset.
    most
        Largest number of cells in all.

    Examples
    --------
    >>> common_sizes([np.array([5, 9, 0]), np.array([7, 4, 3])], 100)
    {0: 5, 1: 4}
    """
    least = np.min(available, axis=0)
    share = min(1.0, most / max(least.sum(), 1))
    return {int(t): max(1, int(least[t] * share)) for t in np.flatnonzero(least)}


def split_halves(
    codes: np.ndarray, sizes: Mapping[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two disjoint random halves, each with ``sizes`` cells of each type.

    Examples
    --------
    >>> first, second = split_halves(np.array([0, 0, 0, 0]), {0: 2}, np.random.default_rng(0))
    >>> sorted([*first.tolist(), *second.tolist()])
    [0, 1, 2, 3]
    """
    both = [rng.choice(np.flatnonzero(codes == t), 2 * n, replace=False) for t, n in sizes.items()]
    first = np.concatenate([rows[: len(rows) // 2] for rows in both])
    second = np.concatenate([rows[len(rows) // 2 :] for rows in both])
    return first, second


def sample_rows(
    codes: np.ndarray, sizes: Mapping[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Random rows with ``sizes`` cells of each type, without replacement.

    Examples
    --------
    >>> rows = sample_rows(np.array([0, 1, 0, 1]), {1: 2}, np.random.default_rng(0))
    >>> sorted(rows.tolist())
    [1, 3]
    """
    of_types = [rng.choice(np.flatnonzero(codes == t), n, replace=False) for t, n in sizes.items()]
    return np.concatenate(of_types)
