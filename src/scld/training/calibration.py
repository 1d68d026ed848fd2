"""After training: generated cells get the spread and the means of real ones.

Networks that learn from few cells are shrunk, so that generated cells of a type vary a little less
than real ones in the directions that matter most. First generated latent points get the mean and
covariance of encoded cells, then a linear change of the decoder restores what it shrinks. Last, the
expression profiles of categories are moved until their means agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from scld.generation.generator import PAGE, Generator
from scld.generation.latent_map import LatentMap
from scld.generation.options import SamplingOptions
from scld.generation.request import SamplingRequest
from scld.io.disk import Counts
from scld.model.latents import Latents
from scld.model.profiles import category_profiles
from scld.preprocessing import log_normalise, split_rows
from scld.schema import unique_rows

_GENES = 2000  # those that vary most
_RANKS = (0, 2, 5, 10, 16, 24)  # bounds of groups of principal axes that share a gain
_CELLS_PER_AXIS = 10  # at least
_GAIN_SD = 0.2  # prior of a squared gain
_KURTOSIS = 4.0  # of cells along an axis
_SMALLEST_GAIN = 0.5
_LEAST_POINTS = 50  # generated of each combination
_PRIOR_CELLS = 10  # that a mean of generated points counts as
_CELLS_PER_DIM = 5  # that an unchanged covariance counts as
_RIDGE = 1e-3  # share of the mean variance


def calibrate_latents(
    generator: Generator, latents: Latents, options: SamplingOptions, number: int, seed: int
) -> Generator:
    """Map generated latent points so that they have the moments of encoded cells.

    The means of each combination of labels, and the covariance within combinations. The map is the
    optimal transport between normal distributions (Peyre & Cuturi, arXiv:1803.00567, remark 2.31).
    It is shrunk towards the identity where few cells tell it.

    Parameters
    ----------
    generator
        A map that it already has is left out.
    latents
        The training cells.
    options
        How to generate points.
    number
        About how many to generate.
    seed
        Of the choice of labels.
    """
    codes, points = latents.labels.cpu().numpy(), latents.points().astype(float)
    combinations, row_of = unique_rows(codes)
    cells, dims = np.bincount(row_of), points.shape[1]
    some = np.random.default_rng(seed).choice(len(codes), number)
    rows = np.concatenate([row_of[some], np.repeat(np.arange(len(cells)), _LEAST_POINTS)])
    identity = LatentMap.identity(len(cells), dims).to(generator.centre.device)
    with threadpool_limits(1, user_api="blas"):  # its rounding depends on the number of threads
        made = _latent_points(replace(generator, latent_map=identity), combinations[rows], options)
        means, covariance = _moments(points, row_of, cells)
        of_made, covariance_of_made = _moments(made, rows, cells)
        noise = (latents.log_variance.exp().mean(dim=0) / latents.scale[:-1] ** 2).cpu().numpy()
        matrix = _transport(covariance_of_made, covariance + np.diag(np.append(noise, 0)))
    degrees = len(codes) - len(cells)
    trust = degrees / (degrees + _CELLS_PER_DIM * dims)
    matrix = trust * matrix + (1 - trust) * np.eye(dims)
    shifts = (means - of_made) * (cells / (cells + _PRIOR_CELLS))[:, None]
    overall = cells @ of_made / len(codes)
    tables = (np.vstack([of_made, overall]), np.vstack([shifts, 0 * overall]), matrix)
    return replace(
        generator,
        latent_map=LatentMap(*(torch.from_numpy(table).to(generator.centre) for table in tables)),
    )


def _moments(
    points: np.ndarray, rows: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means of combinations, and the covariance within them in a mix of so many cells of each."""
    means = _group_means(points, rows)
    within, weights = points - means[rows], cells / np.bincount(rows)
    covariance: np.ndarray = (within * weights[rows, None]).T @ within
    return means, covariance / max(cells.sum() - len(cells), 1)


def _latent_points(generator: Generator, codes: np.ndarray, options: SamplingOptions) -> np.ndarray:
    pages = generator.split(SamplingRequest(codes))
    parts = [generator.latents(page, options)[: len(page.codes)] for page in pages]
    points: np.ndarray = torch.cat(parts).cpu().double().numpy()
    return points


def _transport(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The symmetric matrix that gives points with one covariance the other one."""
    root = _power(before, 0.5)
    inverse = _power(before, -0.5)
    matrix: np.ndarray = inverse @ _power(root @ after @ root, 0.5) @ inverse
    return matrix


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """A power of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    power: np.ndarray = (vectors * values.clip(1e-6) ** exponent) @ vectors.T
    return power


def _group_means(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    means: np.ndarray = (_members(groups) @ points) / np.bincount(groups)[:, None]
    return means


def calibrate_spread(
    generator: Generator, counts: sp.csr_matrix, codes: np.ndarray, options: SamplingOptions
) -> None:
    """Change the decoder so that cells with the same labels vary as much as real ones.

    Along the leading principal axes of log-normalised real cells, within combinations of labels,
    the variances of real and generated cells are compared. To be no result of chance, the axes come
    from one half of the real cells, the variances from the other. Two draws of counts at the same
    latent points tell which part of the variance of generated cells the latent points explain: this
    part alone is scaled.

    Parameters
    ----------
    generator
        Its autoencoder is changed in place.
    counts, codes
        Real cells ``[cells, genes]`` and their labels ``[cells, labels]``; so many are generated.
    options
        How to generate cells.
    """
    _, groups = unique_rows(codes)
    degrees = len(groups) - groups.max() - 1
    number = min(_RANKS[-1], generator.autoencoder.config.latent, degrees // _CELLS_PER_AXIS)
    if number < 1:
        return
    with threadpool_limits(1, user_api="blas"):  # its rounding depends on the number of threads
        made = _generated(generator, codes, groups, options)
        real, first, second = (log_normalise(cells) for cells in (counts, *made.draws))
        genes = np.sort(np.argsort(-_variances(real, groups), kind="stable")[:_GENES])
        real, first, second = (cells[:, genes] for cells in (real, first, second))
        gains = spread_gains(real, first, second, groups, number)
        axes = _axes(_covariance(real, real, groups), number)
        scores = (first @ axes + second @ axes) / 2
        _scale(generator, made, codes, scores, gains[: axes.shape[1]])


def calibrate_means(
    generator: Generator,
    counts: Counts,
    codes: np.ndarray,
    options: SamplingOptions,
    cells: int,
) -> None:
    """Move the profiles of categories so that generated cells have the means of real ones.

    By as much as the counts of the real cells tell with certainty: see `shrunken_ratios`.

    Parameters
    ----------
    generator
        Its autoencoder is changed in place.
    counts, codes
        Real cells ``[cells, genes]`` and their labels ``[cells, labels]``.
    options
        How to generate cells.
    cells
        Largest number of generated cells of each combination of labels.
    """
    autoencoder = generator.autoencoder
    combinations, row_of = unique_rows(codes)
    numbers = np.bincount(row_of).clip(min(PAGE, cells), cells)
    pairs = zip(combinations, numbers, strict=True)
    generated = [proportions(generator, np.tile(row, (n, 1)), options) for row, n in pairs]
    correction = category_profiles(counts, codes, autoencoder.sizes, np.stack(generated))
    autoencoder.profiles += torch.from_numpy(correction).to(autoencoder.profiles)


@torch.no_grad()
def proportions(generator: Generator, codes: np.ndarray, options: SamplingOptions) -> np.ndarray:
    """Expected expression proportions ``[genes]`` of cells with these labels, together."""
    total = np.zeros(len(generator.autoencoder.mean_log_p))
    for page in generator.split(SamplingRequest(codes)):
        points = generator.points(page, options)
        shares = torch.softmax(generator.logits(page, points)[: len(page.codes)], dim=1)
        total += (points[: len(page.codes), -1].exp() @ shares).cpu().numpy()
    expected: np.ndarray = total / total.sum()
    return expected


def spread_gains(
    real: sp.csr_matrix,
    first: sp.csr_matrix,
    second: sp.csr_matrix,
    groups: np.ndarray,
    number: int,
) -> np.ndarray:
    """Factors ``[number]`` by which generated cells have to vary more, axis by axis.

    Neighbouring axes share one. It is shrunk towards 1 where few cells tell it.

    Parameters
    ----------
    real, first, second
        Log-normalised ``[cells, genes]``: real cells, and two draws at the same latent points.
    groups
        ``[cells]`` group of each cell of these; only the variance within groups counts.
    number
        Number of axes.
    """
    made, explained = _covariance(first, first, groups), _covariance(first, second, groups)
    halves, variances = split_rows(groups, 0.5, seed=0), []
    for half, other in (halves, halves[::-1]):
        axes = _axes(_covariance(real[half], real[half], groups[half]), number)
        held_out = _covariance(real[other], real[other], groups[other])
        variances.append([_along(axes, part) for part in (held_out, made, explained)])
    of_real, of_made, of_points = np.mean(variances, axis=0)
    gains = np.ones(number)
    for low, high in pairwise(_RANKS):
        some = slice(low, min(high, number))
        if low < number and of_points[some].sum() > 0:
            excess = (of_real[some].sum() - of_made[some].sum()) / of_points[some].sum()
            error = of_made[some].sum() / of_points[some].sum()
            error *= np.sqrt(2 * (_KURTOSIS - 1) / len(groups) / (some.stop - some.start))
            trust = _GAIN_SD**2 / (_GAIN_SD**2 + error**2)
            gains[some] = np.sqrt(max(1 + trust * excess, _SMALLEST_GAIN**2))
    return gains


@dataclass(frozen=True)
class _Generated:
    """Generated cells: where they lie in latent space, and their counts, drawn twice."""

    points: np.ndarray  # [cells, latent] without the library size
    within: np.ndarray  # the same, less the mean of each group
    products: np.ndarray  # [latent, genes] of these and the logits, summed over cells
    draws: tuple[sp.csr_matrix, sp.csr_matrix]


@torch.no_grad()
def _generated(
    generator: Generator, codes: np.ndarray, groups: np.ndarray, options: SamplingOptions
) -> _Generated:
    pages = list(generator.split(SamplingRequest(codes)))
    latent = [generator.points(page, options) for page in pages]
    cells = zip(latent, pages, strict=True)
    points = torch.cat([some[: len(page.codes), :-1] for some, page in cells]).cpu().numpy()
    within = points - _group_means(points, groups)[groups]
    products = np.zeros((points.shape[1], len(generator.autoencoder.mean_log_p)))
    draws: list[list[sp.csr_matrix]] = [[], []]
    for page, some in zip(pages, latent, strict=True):
        logits = generator.logits(page, some)
        rows = within[page.first : page.first + len(page.codes)]
        products += rows.T @ logits[: len(rows)].cpu().numpy()
        for number, drawn in enumerate(draws):
            drawn.append(generator.draw(page, some, logits, options, number).counts)
    first, second = (sp.csr_matrix(sp.vstack(drawn, format="csr")) for drawn in draws)
    return _Generated(points, within, products, (first, second))


def _scale(
    generator: Generator,
    made: _Generated,
    codes: np.ndarray,
    scores: np.ndarray,
    gains: np.ndarray,
) -> None:
    """Scale what latent points add to the logits, along each axis by its gain.

    The scores on the axes follow from latent points by a linear regression, the logits from these
    scores by another one.
    """
    autoencoder = generator.autoencoder
    to_scores = _regression(made.within.T @ made.within, made.within.T @ scores)
    predicted = made.within @ to_scores
    to_logits = _regression(predicted.T @ predicted, to_scores.T @ made.products)
    change = (to_logits.T * (gains - 1)) @ to_scores.T

    def shift(cells: np.ndarray) -> Tensor:  # taken off, so that nothing changes at their mean
        added = change @ made.points[cells].mean(axis=0)
        return torch.from_numpy(added).to(autoencoder.profiles)

    with torch.no_grad():
        autoencoder.linear.add_(torch.from_numpy(change).to(autoencoder.linear))
        if not autoencoder.sizes:
            autoencoder.output.bias.sub_(shift(np.ones(len(codes), dtype=bool)))
            return
        for category in np.unique(codes[codes[:, 0] >= 0, 0]):
            autoencoder.profiles[category].sub_(shift(codes[:, 0] == category))


def _regression(products: np.ndarray, with_target: np.ndarray) -> np.ndarray:
    """Coefficients of a ridge regression, from the products of its inputs."""
    ridge = _RIDGE * np.trace(products) / len(products) + 1e-12  # inputs may not vary at all
    coefficients: np.ndarray = np.linalg.solve(
        products + ridge * np.eye(len(products)), with_target
    )
    return coefficients


def _axes(covariance: np.ndarray, number: int) -> np.ndarray:
    """Leading principal axes ``[genes, axes]``, by falling variance."""
    from scipy.linalg import eigh

    genes = len(covariance)
    found = eigh(covariance, subset_by_index=[max(0, genes - number), genes - 1])[1]
    axes: np.ndarray = found[:, ::-1]
    return axes


def _along(axes: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Variances along axes."""
    variances: np.ndarray = ((covariance @ axes) * axes).sum(axis=0)
    return variances


def _covariance(first: sp.csr_matrix, second: sp.csr_matrix, groups: np.ndarray) -> np.ndarray:
    """Covariance within groups ``[genes, genes]``."""
    products = _deviations(first, groups).T @ _deviations(second, groups)
    degrees = len(groups) - len(np.unique(groups))
    covariance: np.ndarray = products.astype(float) / max(degrees, 1)
    return covariance


def _deviations(cells: sp.csr_matrix, groups: np.ndarray) -> np.ndarray:
    """Cells less the mean of their group, dense: a product of two is far faster than sparse."""
    sums, sizes = (_members(groups) @ cells).toarray(), np.bincount(groups)[:, None]
    means = (sums / sizes.clip(1)).astype(np.float32)
    deviations: np.ndarray = cells.toarray() - means[groups]
    return deviations


def _variances(cells: sp.csr_matrix, groups: np.ndarray) -> np.ndarray:
    """Sums of squares within groups ``[genes]``."""
    sums = (_members(groups) @ cells).toarray()
    squares = np.asarray(cells.multiply(cells).sum(axis=0)).ravel()
    variances: np.ndarray = squares - (sums**2 / np.bincount(groups)[:, None]).sum(axis=0)
    return variances


def _members(groups: np.ndarray) -> sp.csr_matrix:
    """Groups x cells: 1 where a cell is in a group."""
    cells = np.arange(len(groups))
    return sp.csr_matrix((np.ones(len(cells)), (groups, cells)))
