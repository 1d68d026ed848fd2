"""Expression profiles of categories, and dispersions within them, from training counts.

What a category of a label does to the mean of each gene is known before any network is trained.
The decoder starts from it, and its networks learn deviations. Without it, differences between types
in abundant genes are first taken for noise: the dispersion falls, and with a small dispersion the
likelihood hardly moves the mean (Seitzer et al., arXiv:2203.09168).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import gammaln

from scld.io.disk import Counts, library_sizes, row_blocks
from scld.schema import unique_rows

# Parts of the prior, gamma distributions: any ratio, with a coefficient of variation of .25, and
# ratios that are more and more nearly 1, as most are between similar types.
_SHAPES = np.array([16.0] * 73 + [16 * 4.0**k for k in range(1, 6)])
_RATES = _SHAPES / np.exp(np.concatenate([np.linspace(-9, 9, 73), np.zeros(5)]))
_PRIOR_GENES = 5_000  # genes that it is fitted to; more change nothing
_PRIOR_STEPS = 60
_FEWEST_CELLS = 6  # of a combination of labels that dispersions are estimated from
_DISPERSIONS = (0.05, 300.0)


class _Moments(NamedTuple):
    """Of the cells of groups, their counts scaled to the mean library size."""

    cells: np.ndarray  # [groups, 1]
    mean: np.ndarray  # [groups, genes]
    variance: np.ndarray  # [groups, genes]
    noise: np.ndarray  # [groups, genes] the variance of Poisson counts


def category_profiles(
    counts: Counts,
    codes: np.ndarray,
    sizes: Sequence[int],
    proportions: np.ndarray | None = None,
) -> np.ndarray:
    """The log ratios of the expression of each category to what is expected without it.

    Label after label: what is expected of a category of the second label follows from the
    categories of the first label that its cells have. See `shrunken_ratios`.

    Parameters
    ----------
    counts
        ``[cells, genes]``.
    codes
        Labels ``[cells, labels]``; missing ones count for no category.
    sizes
        Number of categories of each label.
    proportions
        Expected expression proportions ``[combinations, genes]``, in the order of `unique_rows`;
        if left out, those of all cells.

    Returns
    -------
    numpy.ndarray
        ``[sum of sizes, genes]``; zero for a category without cells.

    Examples
    --------
    >>> counts = sp.csr_matrix(np.array([[80, 20], [82, 18], [20, 80], [18, 82]] * 20))
    >>> profiles = category_profiles(counts, np.array([[0], [0], [1], [1]] * 20), [2])
    >>> profiles.shape, bool((profiles[0] * [1, -1] > 0.1).all())
    ((2, 2), True)
    """
    combinations, row_of = unique_rows(codes)
    library = library_sizes(counts)
    depth = np.bincount(row_of, library, len(combinations))
    observed, moments = _moments(counts, library, row_of, len(combinations))
    if proportions is None:
        total = observed.sum(axis=0) + 1e-3  # a gene may have no count at all
        proportions = np.tile(total, (len(combinations), 1))
    expected = proportions / proportions.sum(axis=1, keepdims=True) * depth[:, None]
    profiles = []
    for column, size in enumerate(sizes):
        profile = np.zeros((size, counts.shape[1]))
        for category in np.unique(combinations[:, column]):
            rows = combinations[:, column] == category
            if category >= 0:
                sums = observed[rows].sum(axis=0), expected[rows].sum(axis=0)
                ratios = shrunken_ratios(*sums, _overdispersion(moments, rows))
                profile[category] = np.log(ratios)
                expected[rows] *= ratios
        profiles.append(profile)
    return np.concatenate([np.zeros((0, counts.shape[1])), *profiles])


def shrunken_ratios(
    observed: np.ndarray, expected: np.ndarray, overdispersion: np.ndarray
) -> np.ndarray:
    """Posterior means of the ratios of the rates of genes to expected ones.

    Counts are Poisson with a rate of ratio times expected. The prior of the ratios, one for all
    genes, is a mixture of gamma distributions. Its weights maximise the likelihood (nonparametric
    empirical Bayes: Kiefer & Wolfowitz 1956; Koenker & Mizera 2014, JASA 109:674), by expectation
    maximisation. So few counts move a gene little where genes differ little, and a marker is hardly
    shrunk where there are markers.

    Parameters
    ----------
    observed, expected
        Sums of counts ``[genes]``, and what they would be at a ratio of one.
    overdispersion
        ``[genes]`` variance of the sums over that of Poisson counts. Both sums are divided by it.

    Examples
    --------
    >>> observed, expected = np.array([1.0] * 98 + [0, 900]), np.array([1.0] * 99 + [100])
    >>> ratios = shrunken_ratios(observed, expected, np.ones(100))
    >>> ratios[[0, 98, 99]].round(1).tolist()
    [1.0, 1.0, 9.0]
    """
    observed, expected = observed / overdispersion, expected / overdispersion
    genes = np.linspace(0, len(observed) - 1, min(len(observed), _PRIOR_GENES)).astype(int)
    likelihood = _likelihood(observed[genes], expected[genes])
    weights = np.full(len(_RATES), 1 / len(_RATES))
    for _ in range(_PRIOR_STEPS):
        weights *= likelihood.T @ (1 / (likelihood @ weights)) / len(genes)
    joint = _likelihood(observed, expected) * weights
    means = (_SHAPES + observed[:, None]) / (_RATES + expected[:, None])
    ratios: np.ndarray = (joint * means).sum(axis=1) / joint.sum(axis=1)
    return ratios


def within_dispersions(counts: Counts, codes: np.ndarray) -> np.ndarray:
    """The dispersions of genes ``[genes]`` within combinations of labels, by moments.

    Cells are scaled to the mean library size, and what Poisson counts vary is subtracted. Over
    combinations, the excess variances and the squared means are added up, weighted by cells.

    Parameters
    ----------
    counts
        ``[cells, genes]``.
    codes
        Labels ``[cells, labels]``.
    """
    combinations, row_of = unique_rows(codes)
    if np.bincount(row_of).max() < _FEWEST_CELLS:
        combinations, row_of = combinations[:1], np.zeros_like(row_of)
    _, moments = _moments(counts, library_sizes(counts), row_of, len(combinations))
    weights = np.where(moments.cells >= _FEWEST_CELLS, moments.cells, 0)
    squares = (weights * moments.mean**2).sum(axis=0)
    excess = (weights * (moments.variance - moments.noise)).sum(axis=0)
    dispersions: np.ndarray = squares / np.maximum(excess, 1e-3 * squares + 1e-12)
    return dispersions.clip(*_DISPERSIONS)


def _likelihood(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each part of the prior, ``[genes, parts]``, relative to the largest of each gene."""
    total = _SHAPES + observed[:, None]
    log_likelihood = gammaln(total) - gammaln(_SHAPES) + _SHAPES * np.log(_RATES)
    log_likelihood -= total * np.log(_RATES + expected[:, None])
    likelihood: np.ndarray = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    return likelihood


def _overdispersion(moments: _Moments, groups: np.ndarray) -> np.ndarray:
    """Variance over that of Poisson counts ``[genes]``, in some groups; at least 1."""
    weights = moments.cells[groups]
    variance, noise = (
        (weights * part[groups]).sum(axis=0) for part in (moments.variance, moments.noise)
    )
    overdispersion: np.ndarray = np.maximum(variance / np.maximum(noise, 1e-12), 1)
    return overdispersion


def _moments(
    counts: Counts, library: np.ndarray, group_of: np.ndarray, groups: int
) -> tuple[np.ndarray, _Moments]:
    """Sums of counts ``[groups, genes]``, and moments of the scaled counts, in one pass."""
    scale, cells = library.mean() / library, np.bincount(group_of, minlength=groups)[:, None]
    total, mean, squares, noise = np.zeros((4, groups, counts.shape[1]))
    for rows, block in row_blocks(counts):
        members, factor = group_of[rows], sp.diags_array(scale[rows])
        scaled = sp.csr_matrix(factor @ block)
        total += _sums(block, members, groups)
        mean += _sums(scaled, members, groups)
        squares += _sums(sp.csr_matrix(scaled.multiply(scaled)), members, groups)
        noise += _sums(sp.csr_matrix(factor @ scaled), members, groups)
    mean, squares, noise = mean / cells, squares / cells, noise / cells
    variance = (squares - mean**2).clip(0) * cells / np.maximum(cells - 1, 1)
    return total, _Moments(cells, mean, variance, noise)


def _sums(values: sp.csr_matrix, group_of: np.ndarray, groups: int) -> np.ndarray:
    """Sums over the cells of each group, ``[groups, genes]``."""
    cells = np.arange(len(group_of))
    members = sp.csr_matrix((np.ones(len(cells)), (group_of, cells)), (groups, len(cells)))
    sums: np.ndarray = (members @ values).toarray()
    return sums
