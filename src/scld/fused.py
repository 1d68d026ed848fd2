"""The negative binomial's log-likelihood and its gradient in one pass over cells and genes, for processors.

Torch would go over the same numbers some thirty times. The loops over genes are free of branches, so that the compiler makes them do several genes
at once; what needs a Gamma function happens at the counts above one only. `scld.likelihood` has the formula, and the tests compare the two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import factorial, gammaln

from scld.compiled import inline, loose, steady

FEWEST_IN_SPIKE = 5  # smaller counts are common anyway: no spike is told from them
LIMITS = (-4.6, 9.2)  # of the log-dispersion: 0.01 to 10,000
_LOW, _HIGH = np.float32(LIMITS[0]), np.float32(LIMITS[1])
_SHORT = 16  # Gamma functions of counts up to this are products
_ONE_BY_FACTORIALS = 1 / factorial(np.arange(_SHORT + 1.0))
_LOG_FACTORIALS = gammaln(np.arange(1.0, 257.0))
_CERTAIN = -16.0  # log-odds below which a spike is no explanation, to single precision
_CELLS, _GENES = 16, 2048  # gone through at a time: what is computed of them stays in the processor's first cache
_ONE, _TWO, _ZERO = np.float32(1), np.float32(2), np.float32(0)


class _Block(NamedTuple):
    """Some genes: what all cells have in common, what is computed of one cell, and where gradients go; each ``[genes]``."""

    offset: np.ndarray  # of the log-dispersion
    slope: np.ndarray
    share: np.ndarray  # log of the share of the cell
    r: np.ndarray  # dispersion
    soft: np.ndarray  # log(1 + mu / r)
    part: np.ndarray  # mu / (mu + r)
    row: np.ndarray  # gradient by log-share
    of_offset: np.ndarray
    of_slope: np.ndarray


@steady
def log_likelihoods(
    scores: np.ndarray,
    tops: np.ndarray,
    log_library: np.ndarray,
    offset: np.ndarray,
    slope: np.ndarray,
    x: np.ndarray,
    genes: np.ndarray,
    starts: np.ndarray,
    spike_rate: float,
    weight: float,
    values: np.ndarray,
    of_scores: np.ndarray,
    of_genes: np.ndarray,
    first: int,
    stop: int,
) -> None:
    """Log-likelihoods of the cells from ``first`` to ``stop``, written to ``values [cells]``, and the gradients of their sum.

    Those by score, times ``weight``, are written to ``of_scores [cells, genes]``; those by offset and slope are added to ``of_genes [2, genes]``.
    ``tops`` are the largest scores of each cell. The log-dispersion's limits let gradients pass, so that no gene is stuck there.
    """
    scratch = np.empty((4, _GENES), np.float32)
    log_total, pull, at = np.empty(_CELLS, np.float32), np.empty(_CELLS, np.float32), np.empty(_CELLS, np.int64)
    for start in range(first, stop, _CELLS):
        for cell in range(start, min(start + _CELLS, stop)):
            log_total[cell - start] = _log_total(scores[cell], tops[cell], scratch[0])
            pull[cell - start], values[cell], at[cell - start] = 0, 0, starts[cell]
        for low in range(0, scores.shape[1], _GENES):
            some = slice(low, min(low + _GENES, scores.shape[1]))
            size = some.stop - low
            for cell in range(start, min(start + _CELLS, stop)):
                i, end, library = cell - start, starts[cell + 1], log_library[cell]
                cell_part = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size], of_scores[cell, some]
                block = _Block(offset[some], slope[some], *cell_part, of_genes[0, some], of_genes[1, some])
                _at_zero(scores[cell, some], log_total[i], library, block)
                begin = at[i]
                at[i] += np.searchsorted(genes[begin:end], some.stop)
                values[cell] += _at_counts(x[begin : at[i]], genes[begin : at[i]], low, spike_rate, library, block) - _dot(block.r, block.soft)
                pull[i] += _plus(block.row)
        for cell in range(start, min(start + _CELLS, stop)):
            _through_softmax(scores[cell], log_total[cell - start], pull[cell - start], weight, of_scores[cell])


@steady
def _log_total(score: np.ndarray, top: float, exps: np.ndarray) -> np.float32:
    """log of the sum of exps, given the largest score."""
    total = np.float32(0)
    for low in range(0, len(score), _GENES):
        some = score[low : low + _GENES]
        for gene in range(len(some)):
            exps[gene] = _exp(some[gene] - top)
        total += _plus(exps[: len(some)])
    return top + np.float32(math.log(total))


@steady
def _at_zero(score: np.ndarray, log_total: float, library: float, block: _Block) -> None:
    """Gradients of the term that every gene has, -r log(1 + mu / r), and what its value and the other terms need."""
    offset, slope, share, r, soft, part, row, of_offset, of_slope = block
    for gene in range(len(score)):
        share[gene] = score[gene] - log_total
        log_r = _limited(offset[gene] + slope[gene] * share[gene])
        ratio = share[gene] + library - log_r  # log(mu / r)
        small = _exp(-abs(ratio))
        r[gene] = _exp(log_r)
        soft[gene] = (ratio if ratio > _ZERO else _ZERO) + _log1p(small)  # log(1 + mu / r)
        part[gene] = (_ONE if ratio > _ZERO else small) / (_ONE + small)  # mu / (mu + r)
        by_dispersion = r[gene] * (part[gene] - soft[gene])
        row[gene] = slope[gene] * by_dispersion - r[gene] * part[gene]
        of_offset[gene] += by_dispersion
        of_slope[gene] += by_dispersion * share[gene]


@steady
def _through_softmax(score: np.ndarray, log_total: float, pull: float, weight: float, row: np.ndarray) -> None:
    """From the gradient by log-share to that by score."""
    for gene in range(len(score)):
        row[gene] = weight * (row[gene] - pull * _exp(score[gene] - log_total))


@steady
def _at_counts(x: np.ndarray, genes: np.ndarray, low: int, spike_rate: float, library: float, block: _Block) -> float:
    """What a cell's counts add to the terms that every gene has: the value is returned, gradients are added to those that are there."""
    offset, slope, share, r, soft, part, row, of_offset, of_slope = block
    above_one, number = np.empty(len(x), np.int64), 0
    total, product = 0.0, 1.0
    for i in range(len(x)):
        gene = genes[i] - low
        log_r = _limited(offset[gene] + slope[gene] * share[gene])
        total += log_r + x[i] * (share[gene] + library - log_r - soft[gene])
        by_mean = x[i] * (_ONE - part[gene])
        row[gene] += by_mean + slope[gene] * (_ONE - by_mean)
        of_offset[gene] += _ONE - by_mean
        of_slope[gene] += (_ONE - by_mean) * share[gene]
        above_one[number] = i
        number += x[i] > _ONE
    for i in above_one[:number]:
        gene, count = genes[i] - low, np.float64(x[i])
        if count <= _SHORT:
            binomial, by_r = _product(np.float64(r[gene]), int(count))
            binomial *= _ONE_BY_FACTORIALS[int(count)]
            product *= binomial  # one logarithm for many counts
            if not 1e-200 < product < 1e200:
                total += math.log(product)
                product = 1.0
            log_binomial = math.log(binomial) if count >= FEWEST_IN_SPIKE else 0.0
        else:
            log_binomial, by_r = _long_product(np.float64(r[gene]), count)
            log_binomial -= _log_factorial(count)
            total += log_binomial
        by_mean, by_dispersion = 0.0, r[gene] * by_r
        if spike_rate > 0 and count >= FEWEST_IN_SPIKE:
            log_r = _limited(offset[gene] + slope[gene] * share[gene])
            usual = log_binomial + log_r + count * (share[gene] + library - log_r - soft[gene]) - r[gene] * soft[gene]
            odds = math.log(spike_rate * FEWEST_IN_SPIKE / (count * (count + 1))) - usual
            if not odds < _CERTAIN:
                total += max(odds, 0.0) + math.log1p(math.exp(-abs(odds)))
                spike, of_mean = 1 / (1 + math.exp(min(-odds, 700.0))), count * (1 - part[gene])
                by_mean = -spike * (of_mean - r[gene] * part[gene])
                by_dispersion -= spike * (1 - of_mean + by_dispersion + r[gene] * (part[gene] - soft[gene]))
        row[gene] += np.float32(by_mean + slope[gene] * by_dispersion)
        of_offset[gene] += np.float32(by_dispersion)
        of_slope[gene] += np.float32(by_dispersion * share[gene])
    return total + math.log(product)


@steady
def _product(r: float, x: int) -> tuple[float, float]:
    """Gamma(x + r) / Gamma(1 + r), and the slope of its log by r."""
    product, slope = r + 1, 1.0
    for k in range(2, x):
        slope = slope * (r + k) + product
        product *= r + k
    return product, slope / product


@steady
def _long_product(r: float, x: float) -> tuple[float, float]:
    """log of Gamma(x + r) / Gamma(1 + r), and its slope by r: a short product, and Stirling's series for the rest (Abramowitz & Stegun 6.1.40, 6.3.18)."""
    short, slope = _product(r, _SHORT)
    low, high = r + _SHORT, r + x
    log_low, log_high = math.log(low), math.log(high)
    value = (high - 0.5) * log_high - (low - 0.5) * log_low - (high - low) + _series(high) - _series(low)
    return math.log(short) + value, slope + log_high - log_low + _series_slope(high) - _series_slope(low)


@steady
def _series(z: float) -> float:
    square = 1 / (z * z)
    return (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / z


@steady
def _series_slope(z: float) -> float:
    square = 1 / (z * z)
    return -0.5 / z - square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))


@steady
def _log_factorial(x: float) -> float:
    return _LOG_FACTORIALS[int(x)] if x < len(_LOG_FACTORIALS) else math.lgamma(x + 1)


@loose
def _plus(a: np.ndarray) -> np.float32:
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i]
    return total


@loose
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@inline
def _limited(log_r: np.float32) -> np.float32:
    above = log_r if log_r > _LOW else _LOW
    return above if above < _HIGH else _HIGH


@inline
def _exp(x: np.float32) -> np.float32:
    """exp of numbers below 88, by 2^n and a polynomial in what is left (the coefficients of Cephes' expf); 0 to single precision below -87."""
    x = x if x > np.float32(-87) else np.float32(-87)
    shifted = x * np.float32(1.44269504) + np.float32(12582912)  # 1.5 * 2^23: the last bits now hold the nearest whole number
    n = shifted - np.float32(12582912)
    f = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4) * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * f * f + f + _ONE
    return p * np.int32((np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)


@inline
def _log1p(t: np.float32) -> np.float32:
    """log(1 + t) for t in [0, 1], by the series of artanh."""
    s = t / (_TWO + t)
    q = s * s
    p = np.float32(2 / 13) * q + np.float32(2 / 11)
    p = p * q + np.float32(2 / 9)
    p = p * q + np.float32(2 / 7)
    p = p * q + np.float32(2 / 5)
    p = p * q + np.float32(2 / 3)
    return (p * q + _TWO) * s
