"""Exact negative binomial counts, written straight to CSR: compiled, and in torch for a GPU.

Most counts are zero, and most zeros are decided by one uniform number and one comparison: P(0) is
at least exp(-mu), which is at least 1 - mu + mu^2 / 2 - mu^3 / 6. Each count has its own random
stream, keyed by (seed, position of the cell, gene), so that it does not depend on the batch or
thread, nor on the means of other genes.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from scld.kernels.jit import njit

_INVERSION_BELOW = 16.0  # larger means: gamma and Poisson draws cost less than inversion
_PTRS_FROM = 10.0  # the mean from which Hoermann's rejection constants hold
_STEP = np.uint64(0x9E3779B97F4A7C15)  # between the states of a stream
_THINNING = 0x2545F4914F6CDD1D  # its streams are not those of the counts


def sample_counts(
    mean: np.ndarray, dispersion: np.ndarray, seed: int, first: int = 0
) -> sp.csr_matrix:
    """Draw counts from negative binomials with variance mean + mean^2 / dispersion.

    Parameters
    ----------
    mean
        ``[cells, genes]``, positive.
    dispersion
        ``[genes]`` or ``[cells, genes]``, positive; the larger, the nearer to Poisson.
    seed
        Same seed, same counts.
    first
        Position of the first cell in the whole run: cell ``i`` here has position ``first + i``.

    Returns
    -------
    scipy.sparse.csr_matrix
        ``[cells, genes]``, float32, integers.

    Examples
    --------
    >>> import numpy as np
    >>> counts = sample_counts(np.full((4, 3), 2.0), np.ones(3), seed=0)
    >>> (counts[2:] != sample_counts(np.full((2, 3), 2.0), np.ones(3), seed=0, first=2)).nnz
    0
    """
    mean = np.ascontiguousarray(mean, dtype=np.float32)
    dispersion = np.atleast_2d(np.ascontiguousarray(dispersion, dtype=np.float32))
    indptr, indices, values = _sample_rows(mean, dispersion, np.uint64(seed), np.uint64(first))
    return sp.csr_matrix((values, indices, indptr), shape=mean.shape)


def thin(counts: sp.csr_matrix, shares: np.ndarray, seed: int, first: int = 0) -> sp.csr_matrix:
    """Keep each molecule with a probability: binomial counts, as of a shallower sequencing.

    Parameters
    ----------
    counts
        ``[cells, genes]``.
    shares
        ``[cells]`` the probability; from 1 on a cell keeps its counts.
    seed, first
        As for `sample_counts`.

    Examples
    --------
    >>> thin(sp.csr_matrix([[1000.0]]), np.array([0.5]), seed=0).toarray().round(-2)
    array([[500.]], dtype=float32)
    """
    values = counts.data.astype(np.float32)
    key = np.uint64(seed ^ _THINNING)
    _thin_rows(values, counts.indices, counts.indptr, shares.astype(float), key, np.uint64(first))
    kept = sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape, copy=True)
    kept.eliminate_zeros()
    return kept


def sample_counts_on_device(
    log_mean: Tensor, log_dispersion: Tensor, generator: torch.Generator
) -> Tensor:
    """The same distribution drawn in torch, where the parameters are: counts ``[cells, genes]``.

    A Poisson count whose rate is drawn from a gamma distribution.
    """
    gamma = torch._standard_gamma(log_dispersion.exp(), generator)
    return torch.poisson(gamma.mul_((log_mean - log_dispersion).exp_()), generator)


def csr_of_device(counts: Tensor) -> sp.csr_matrix:
    """Dense counts on a device -> CSR, float32; only those that are not zero leave the device."""
    cells, genes = counts.nonzero(as_tuple=True)
    values = counts[cells, genes].float().cpu().numpy()
    indptr = np.zeros(len(counts) + 1, np.int32)
    np.cumsum((counts > 0).sum(dim=1).cpu().numpy(), out=indptr[1:])
    indices = genes.int().cpu().numpy()
    return sp.csr_matrix((values, indices, indptr), shape=(len(counts), counts.shape[1]))


def sample_counts_plain(
    mean: np.ndarray, dispersion: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Counts ``[cells, genes]`` of the same distribution, as a gamma-Poisson mixture in NumPy."""
    return rng.poisson(rng.gamma(dispersion, mean / dispersion))


@njit()
def _sample_rows(
    mean: np.ndarray, dispersion: np.ndarray, seed: np.uint64, first: np.uint64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cells, genes = mean.shape
    indptr = np.zeros(cells + 1, np.int32)
    indices = np.empty(max(genes, cells * genes // 8), np.int32)
    values = np.empty(len(indices), np.float32)
    stream, sure = np.empty(1, np.uint64), np.empty(genes, np.bool_)
    at = 0
    for cell in range(cells):
        if at + genes > len(indices):
            indices = _grown(indices, genes)
            values = _grown(values, genes)
        begin = _mix(_mix(seed) + first + np.uint64(cell))
        r = dispersion[cell % len(dispersion)]
        for gene in range(genes):  # no branches, so that it is vectorised
            mu = np.float64(mean[cell, gene])
            least_p0 = 1.0 - mu * (1.0 - mu * (0.5 - mu / 6.0))
            sure[gene] = _unit(begin + np.uint64(gene + 1) * _STEP) < least_p0
        for gene in range(genes):
            if sure[gene]:
                continue
            stream[0] = _mix(begin - np.uint64(gene + 1) * _STEP)
            u = _unit(begin + np.uint64(gene + 1) * _STEP)
            count = _negative_binomial(np.float64(mean[cell, gene]), np.float64(r[gene]), u, stream)
            if count > 0:
                indices[at] = gene
                values[at] = count
                at += 1
        indptr[cell + 1] = at
    return indptr, indices[:at].copy(), values[:at].copy()


@njit()
def _thin_rows(
    values: np.ndarray,
    genes: np.ndarray,
    indptr: np.ndarray,
    shares: np.ndarray,
    seed: np.uint64,
    first: np.uint64,
) -> None:
    stream = np.empty(1, np.uint64)
    for cell in range(len(shares)):
        if shares[cell] >= 1.0:
            continue
        begin = _mix(_mix(seed) + first + np.uint64(cell))
        for at in range(indptr[cell], indptr[cell + 1]):
            stream[0] = _mix(begin - np.uint64(genes[at] + 1) * _STEP)
            kept = 0
            for _ in range(int(values[at])):
                kept += _uniform(stream) < shares[cell]
            values[at] = kept


@njit()
def _grown(array: np.ndarray, least: int) -> np.ndarray:
    larger = np.empty(2 * len(array) + least, array.dtype)
    larger[: len(array)] = array
    return larger


@njit()
def _negative_binomial(mean: float, r: float, u: float, stream: np.ndarray) -> float:
    if mean >= _INVERSION_BELOW:
        return _poisson(_gamma(r, stream) * mean / r, stream)
    probability = math.exp(-r * math.log1p(mean / r))
    ratio = mean / (mean + r)
    cumulative, count = probability, 0.0
    while u > cumulative and probability > 0.0:
        probability *= (count + r) / (count + 1.0) * ratio
        cumulative += probability
        count += 1.0
        if probability < 1e-18 and count > mean:  # float64 cannot resolve the rest of the tail
            break
    return count


@njit()
def _gamma(shape: float, stream: np.ndarray) -> float:
    """Marsaglia & Tsang (2000), ACM TOMS 26:363; below shape 1 by their power of a uniform."""
    boost = 1.0
    if shape < 1.0:
        boost = math.exp(math.log(_uniform(stream)) / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = _normal(stream)
        v = (1.0 + c * x) ** 3
        if v > 0.0 and math.log(_uniform(stream)) < 0.5 * x * x + d * (1.0 - v + math.log(v)):
            return d * v * boost


@njit()
def _poisson(mean: float, stream: np.ndarray) -> float:
    """Inversion for small means, else transformed rejection.

    PTRS of Hoermann (1993), Insurance: Mathematics and Economics 12:39.
    """
    if mean < _PTRS_FROM:
        u, probability, count = _uniform(stream), math.exp(-mean), 0.0
        cumulative = probability
        while u > cumulative and probability > 1e-18:
            count += 1.0
            probability *= mean / count
            cumulative += probability
        return count
    root, log_mean = math.sqrt(mean), math.log(mean)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    squeeze = 0.9277 - 3.6224 / (b - 2.0)
    while True:
        u = _uniform(stream) - 0.5
        v = _uniform(stream)
        us = 0.5 - abs(u)
        count = math.floor((2.0 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= squeeze:
            return count
        if count < 0.0 or (us < 0.013 and v > us):
            continue
        if math.log(
            v * inverse_alpha / (a / (us * us) + b)
        ) <= count * log_mean - mean - math.lgamma(count + 1.0):
            return count


@njit()
def _normal(stream: np.ndarray) -> float:
    """Marsaglia's polar method."""
    while True:
        x, y = 2.0 * _uniform(stream) - 1.0, 2.0 * _uniform(stream) - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            return x * math.sqrt(-2.0 * math.log(square) / square)


@njit()
def _uniform(stream: np.ndarray) -> float:
    stream[0] += _STEP
    return _unit(stream[0])


@njit(inline=True)
def _unit(state: np.uint64) -> float:
    """A number in (0, 1), never either end, from SplitMix64 (Steele, Lea & Flood 2014, OOPSLA)."""
    return (np.float64(_mix(state) >> np.uint64(11)) + 0.5) * 2.0**-53


@njit(inline=True)
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
