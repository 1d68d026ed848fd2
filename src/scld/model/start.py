"""Where the autoencoder starts: what components of half of each count tell about the other half.

Training on few cells stops early, before a network that starts at random has learnt what varies
within types, and generated cells then vary too little. So latent points start at the posterior
means of principal components, and the linear part of the decoder at a regression of the counts on
them. The counts of each cell are split into two halves at random, which are independent given the
cell's expression: what a component of one half tells about the other half is no noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from scld.model.profiles import group_moments, group_sums, overdispersion
from scld.preprocessing import log_normalise, principal_components
from scld.schema import unique_rows

_STEPS = 8  # of expectation maximisation
_GENES = 2048  # at a time
_START_SD = 0.1
_SMALLEST_SD = 1e-3  # of loadings
_LARGEST = 1.0  # loading
_FEWEST_CELLS = 20  # of a category; of one with fewer, memberships start without the latent point
_LARGEST_OFFSET = 3.0  # of memberships: between far categories, a point belongs to both
_RELIABILITY = (1e-4, 0.98)
Halves = tuple[np.ndarray, np.ndarray]


class Start(NamedTuple):
    """First values of parts of the autoencoder."""

    direct: np.ndarray  # [latent] factor of each component
    variance: np.ndarray  # [latent] of the posterior
    centres: np.ndarray  # [sum of sizes, latent] mean latent points of categories
    membership: np.ndarray  # [sum of sizes, latent]
    membership_offset: np.ndarray  # [sum of sizes]
    given_weight: np.ndarray  # [sum of sizes]
    linear: np.ndarray  # [genes, latent]


def split_counts(counts: sp.csr_matrix, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Each count split into two binomial halves.

    Examples
    --------
    >>> halves = split_counts(sp.csr_matrix([[4.0, 0.0], [1.0, 2.0]]), seed=0)
    >>> (halves[0] + halves[1]).toarray().tolist()
    [[4.0, 0.0], [1.0, 2.0]]
    """
    first = counts.copy()
    values = np.random.default_rng(seed).binomial(counts.data.astype(np.int64), 0.5)
    first.data = values.astype(counts.dtype)
    second = counts - first
    first.eliminate_zeros()
    second.eliminate_zeros()
    return first, sp.csr_matrix(second)


def start_values(
    counts: tuple[sp.csr_matrix, sp.csr_matrix],
    halves: Halves,
    whole: np.ndarray,
    held_out: HeldOut,
    codes: np.ndarray,
    sizes: Sequence[int],
    proportions: np.ndarray,
) -> Start:
    """First values of latent points, memberships and loadings.

    Parameters
    ----------
    counts
        Both halves of the counts ``[cells, genes]``.
    halves, whole
        Components ``[cells, latent]`` of each half and of all counts.
    codes
        Labels ``[cells, labels]``.
    sizes
        Number of categories of each label.
    proportions
        Expected expression proportions ``[combinations, genes]``, in the order of `unique_rows`.
    """
    of_half, _ = reliabilities(halves)
    of_whole = held_out.reliability
    scale = whole.std(axis=0).clip(1e-6)
    points = (whole - whole.mean(axis=0)) * np.sqrt(of_whole) / scale
    centres, within = category_centres(points, codes, sizes)
    noise = 1 - of_whole
    membership, offset = discriminant(centres, within, noise, one_hot(codes, sizes).sum(axis=0))
    predictors = [
        (half - half.mean(axis=0)) * np.sqrt(of_half) / half.std(axis=0).clip(1e-6)
        for half in halves
    ]
    _, group_of = unique_rows(codes)
    linear = gene_loadings(counts, (predictors[0], predictors[1]), group_of, proportions)
    linear *= np.sqrt((held_out.covariance / covariances(halves).clip(1e-6)).clip(0, 1))
    given = 1 - np.where(membership.any(axis=1), 0, offset)  # certain of few cells: their label
    return Start(np.sqrt(of_whole) / scale, noise, centres, membership, offset, given, linear)


class HeldOut(NamedTuple):
    """Components of cells that they were not fitted to: see `held_out_components`."""

    reliability: np.ndarray
    covariance: np.ndarray


def held_out_components(
    halves: tuple[sp.csr_matrix, sp.csr_matrix], library: float, number: int
) -> HeldOut:
    """Reliability of components, and covariance between halves, of cells they were not fitted to.

    In the cells that components are fitted to, both are too large: components follow the noise.

    Parameters
    ----------
    halves
        Both halves of the counts.
    library
        Library size that cells are scaled to.
    number
        Number of components.
    """
    whole = log_normalise(sp.csr_matrix(halves[0] + halves[1]), library)
    logs = [log_normalise(half, library) for half in halves]
    rows = np.random.default_rng(0).permutation(whole.shape[0])
    reliability, covariance = np.full((2, number), _RELIABILITY[0]), np.zeros((2, number))
    for i, (fitted, other) in enumerate(((rows[::2], rows[1::2]), (rows[1::2], rows[::2]))):
        loadings, _, variance = principal_components(whole[np.sort(fitted)], number)
        loadings = loadings / np.sqrt(variance.clip(1e-6))
        first, second = (np.asarray(part[np.sort(other)] @ loadings) for part in logs)
        found = len(variance)
        reliability[i, :found] = reliabilities((first, second))[1]
        covariance[i, :found] = covariances((first, second))
    return HeldOut(reliability.mean(axis=0), covariance.mean(axis=0).clip(0))


def covariances(halves: Halves) -> np.ndarray:
    """Of each component of one half with that of the other half."""
    first, second = (half - half.mean(axis=0) for half in halves)
    products: np.ndarray = (first * second).mean(axis=0)
    return products


def reliabilities(halves: Halves) -> Halves:
    """Share of the variance of components that is no noise: of one half, and of all counts.

    The second follows from the first by the formula of Spearman and Brown.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.normal(size=(20_000, 1))
    >>> halves = tuple(signal + rng.normal(size=signal.shape) for _ in range(2))
    >>> [round(float(share[0]), 1) for share in reliabilities(halves)]
    [0.5, 0.7]
    """
    first, second = (half - half.mean(axis=0) for half in halves)
    variances = (first**2).mean(axis=0) * (second**2).mean(axis=0)
    of_half = (first * second).mean(axis=0) / np.sqrt(variances).clip(1e-12)
    of_half = of_half.clip(*_RELIABILITY)
    return of_half, (2 * of_half / (1 + of_half)).clip(*_RELIABILITY)


def category_centres(
    points: np.ndarray, codes: np.ndarray, sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean points of categories ``[sum of sizes, latent]``, and the points less these.

    Label after label: those of a second label are means of what the first leaves.
    """
    left, centres = points.copy(), [np.zeros((0, points.shape[1]))]
    for column, size in enumerate(sizes):
        of_label = np.zeros((size, points.shape[1]))
        for category in np.unique(codes[:, column][codes[:, column] >= 0]):
            rows = codes[:, column] == category
            of_label[category] = left[rows].mean(axis=0)
            left[rows] -= of_label[category]
        centres.append(of_label)
    return np.concatenate(centres), left


def discriminant(
    centres: np.ndarray, within: np.ndarray, noise: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``[categories, latent]`` and offsets of memberships: linear discriminant analysis.

    Parameters
    ----------
    centres
        ``[categories, latent]``.
    within
        ``[cells, latent]`` posterior means of cells less their centres.
    noise
        ``[latent]`` variance of the posterior.
    cells
        ``[categories]`` number of cells.
    """
    precision = np.linalg.inv(within.T @ within / len(within) + np.diag(noise))
    weights = centres @ precision
    offsets = -0.5 * (weights * centres).sum(axis=1)
    softer = _LARGEST_OFFSET / np.maximum(-offsets, _LARGEST_OFFSET)
    few = cells < _FEWEST_CELLS
    softer[few], offsets[few] = 0, np.log((cells[few] + 1) / len(within))
    return softer[:, None] * weights, np.where(few, 1, softer) * offsets


def one_hot(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Codes ``[rows, labels]`` as ``[rows, sum of sizes]``; a missing label as zeros."""
    parts = [np.eye(size + 1)[codes[:, i] + 1, 1:] for i, size in enumerate(sizes)]
    return np.concatenate([np.zeros((len(codes), 0)), *parts], axis=1)


def gene_loadings(
    counts: tuple[sp.csr_matrix, sp.csr_matrix],
    predictors: Halves,
    group_of: np.ndarray,
    proportions: np.ndarray,
) -> np.ndarray:
    """Loadings of the log expression of each gene on latent points, within groups of cells.

    A Poisson regression of each half of the counts on the posterior means of the points given the
    other half (regression calibration: Carroll et al. 2006, chapter 4), linearised at the expected
    counts. The loadings of a gene have a normal prior. Its variance is the gene's own and maximises
    the likelihood, by expectation maximisation (MacKay 1992, Neural Computation 4:415).

    Parameters
    ----------
    counts, predictors
        Of each half: ``[cells, genes]`` and ``[cells, latent]``.
    group_of
        ``[cells]`` group of each cell.
    proportions
        Expected expression proportions ``[groups, genes]``.

    Returns
    -------
    numpy.ndarray
        ``[genes, latent]``.
    """
    groups, dims = len(proportions), predictors[0].shape[1]
    outer: np.ndarray = np.zeros((groups, dims * dims))
    score: np.ndarray = np.zeros((counts[0].shape[1], dims))
    sums = np.bincount(group_of)[:, None]
    for points, other in zip(predictors, counts[::-1], strict=True):
        means = group_sums(sp.csr_matrix(points), group_of, groups) / sums
        within = points - means[group_of]
        weighted = np.asarray(other.sum(axis=1)).reshape(-1, 1) * within
        products = (within[:, :, None] * weighted[:, None, :]).reshape(len(within), -1)
        outer += group_sums(sp.csr_matrix(products), group_of, groups)
        score += other.T @ within
        score -= proportions.T @ group_sums(sp.csr_matrix(weighted), group_of, groups)
    whole = sp.csr_matrix(counts[0] + counts[1])
    noise = overdispersion(group_moments(whole, group_of, groups), np.arange(groups))
    loadings = []
    for first in range(0, len(score), _GENES):
        some = slice(first, first + _GENES)
        information = (proportions[:, some].T @ outer).reshape(-1, dims, dims)
        loadings.append(_regression(information, score[some], noise[some]))
    return np.concatenate(loadings)


def _regression(information: np.ndarray, score: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Posterior means of loadings, given information and score at zero, and the overdispersion."""
    information, score = information / noise[:, None, None], score / noise[:, None]
    variance = np.full(len(score), _START_SD**2)
    for _ in range(_STEPS):
        prior = np.eye(score.shape[1]) / variance[:, None, None]
        covariance = np.linalg.inv(information + prior)
        loadings = (covariance @ score[:, :, None])[:, :, 0]
        spread = np.trace(covariance, axis1=1, axis2=2)
        variance = ((loadings**2).sum(axis=1) + spread) / score.shape[1]
        variance = variance.clip(_SMALLEST_SD**2)
    clipped: np.ndarray = loadings.clip(-_LARGEST, _LARGEST)
    return clipped
