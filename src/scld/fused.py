"""The negative binomial's log-likelihood and its gradient in one pass over cells and genes, for processors.

Torch would go over the same numbers some thirty times. The loops over genes are free of branches, so that the compiler makes them do several genes
at once; what needs a Gamma function happens at the non-zero counts only. `scld.likelihood` has the formula, and the tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from scipy.special import gammaln

FEWEST_IN_SPIKE = 5  # smaller counts are common anyway: no spike is told from them
LIMITS = (-4.6, 9.2)  # of the log-dispersion: 0.01 to 10,000
_LOW, _HIGH = np.float32(LIMITS[0]), np.float32(LIMITS[1])
_LOG_FACTORIALS = gammaln(np.arange(1.0, 257.0))
_ONE, _TWO, _ZERO = np.float32(1), np.float32(2), np.float32(0)


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nnan", "ninf", "nsz"})(function)
    return compiled


def _inline(function: Callable[..., Any]) -> Callable[..., Any]:
    inlined: Callable[..., Any] = numba.njit(inline="always", error_model="numpy")(function)
    return inlined


@_kernel
def values(
    log_share: np.ndarray,
    log_library: np.ndarray,
    offset: np.ndarray,
    slope: np.ndarray,
    x: np.ndarray,
    genes: np.ndarray,
    starts: np.ndarray,
    spike_rate: float,
    out: np.ndarray,
    first: int,
    stop: int,
) -> None:
    """Log-likelihoods of the cells from ``first`` to ``stop``, written to ``out [cells]``."""
    r, soft = np.empty((2, log_share.shape[1]), np.float32)
    for cell in range(first, stop):
        shares, library = log_share[cell], log_library[cell]
        for gene in range(len(shares)):
            log_r = _limited(offset[gene] + slope[gene] * shares[gene])
            r[gene] = _exp(log_r)
            soft[gene] = _softplus(shares[gene] + library - log_r)
        total = -_dot(r, soft)
        for i in range(starts[cell], starts[cell + 1]):
            gene = genes[i]
            log_r = _limited(offset[gene] + slope[gene] * shares[gene])
            total += _at_count(np.float64(x[i]), np.float64(r[gene]), log_r, shares[gene] + library - log_r, soft[gene], spike_rate)
        out[cell] = total


@_kernel
def gradients(
    log_share: np.ndarray,
    log_library: np.ndarray,
    offset: np.ndarray,
    slope: np.ndarray,
    x: np.ndarray,
    genes: np.ndarray,
    starts: np.ndarray,
    spike_rate: float,
    weights: np.ndarray,
    of_share: np.ndarray,
    of_genes: np.ndarray,
    first: int,
    stop: int,
) -> None:
    """Gradients of the weighted sum of these cells' log-likelihoods: by log-share, written to ``of_share [cells, genes]``, and by offset and
    slope, added to ``of_genes [2, genes]``. The log-dispersion's limits let gradients pass, so that no gene is stuck there."""
    of_offset, of_slope = of_genes[0], of_genes[1]
    r, soft, part = np.empty((3, log_share.shape[1]), np.float32)
    for cell in range(first, stop):
        shares, library, weight, row = log_share[cell], log_library[cell], weights[cell], of_share[cell]
        for gene in range(len(shares)):
            log_r = _limited(offset[gene] + slope[gene] * shares[gene])
            ratio = shares[gene] + library - log_r
            r[gene], soft[gene], part[gene] = _exp(log_r), _softplus(ratio), _sigmoid(ratio)
            by_dispersion = weight * r[gene] * (part[gene] - soft[gene])
            row[gene] = slope[gene] * by_dispersion - weight * r[gene] * part[gene]
            of_offset[gene] += by_dispersion
            of_slope[gene] += by_dispersion * shares[gene]
        for i in range(starts[cell], starts[cell + 1]):
            gene, count = genes[i], np.float64(x[i])
            by_mean = count * (1 - np.float64(part[gene]))
            by_dispersion = 1 - by_mean + r[gene] * _rising_slope(np.float64(r[gene]), count)
            if spike_rate > 0 and count >= FEWEST_IN_SPIKE:
                log_r = _limited(offset[gene] + slope[gene] * shares[gene])
                usual = _usual(count, np.float64(r[gene]), log_r, shares[gene] + library - log_r, soft[gene])
                no_spike = 1 / (1 + math.exp(min(_spike(count, spike_rate) - usual, 700.0)))
                by_mean -= (1 - no_spike) * (by_mean - r[gene] * part[gene])
                by_dispersion -= (1 - no_spike) * (by_dispersion + r[gene] * (part[gene] - soft[gene]))
            row[gene] += np.float32(weight * (by_mean + slope[gene] * by_dispersion))
            of_offset[gene] += np.float32(weight * by_dispersion)
            of_slope[gene] += np.float32(weight * by_dispersion * shares[gene])


@_kernel
def _at_count(x: float, r: float, log_r: float, ratio: float, soft: float, spike_rate: float) -> float:
    """What a count adds to the term that every gene has."""
    if spike_rate == 0.0 or x < FEWEST_IN_SPIKE:
        return _added(x, r, log_r, ratio, soft)
    usual, spike = _usual(x, r, log_r, ratio, soft), _spike(x, spike_rate)
    return max(usual, spike) + math.log1p(math.exp(-abs(usual - spike))) + r * soft


@_kernel
def _usual(x: float, r: float, log_r: float, ratio: float, soft: float) -> float:
    """log p(x) of the negative binomial."""
    return _added(x, r, log_r, ratio, soft) - r * soft


@_kernel
def _added(x: float, r: float, log_r: float, ratio: float, soft: float) -> float:
    """The same but for the term that every gene has; ``soft`` is log(1 + mu / r), and ``ratio`` log(mu / r)."""
    return log_r + x * (ratio - soft) + (_log_rising(r, x) - _log_factorial(x) if x > 1 else 0.0)


@_kernel
def _spike(x: float, rate: float) -> float:
    return math.log(rate * FEWEST_IN_SPIKE / (x * (x + 1)))


@_kernel
def _log_rising(r: float, x: float) -> float:
    """log of Gamma(x + r) / Gamma(1 + r)."""
    if x > 16:
        return math.lgamma(x + r) - math.lgamma(1 + r)
    product = 1.0
    for k in range(1, int(x)):
        product *= r + k
    return math.log(product)


@_kernel
def _rising_slope(r: float, x: float) -> float:
    """Its derivative by r, digamma(x + r) - digamma(1 + r)."""
    if x > 64:
        return _digamma(x + r) - _digamma(1 + r)
    total = 0.0
    for k in range(1, int(x)):
        total += 1 / (r + k)
    return total


@_kernel
def _digamma(z: float) -> float:
    """By its recurrence, and its asymptotic series from 10 on (Abramowitz & Stegun 6.3.5 and 6.3.18)."""
    below = 0.0
    while z < 10.0:
        below += 1 / z
        z += 1
    square = 1 / (z * z)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    return math.log(z) - 0.5 / z - series - below


@_kernel
def _log_factorial(x: float) -> float:
    return _LOG_FACTORIALS[int(x)] if x < len(_LOG_FACTORIALS) else math.lgamma(x + 1)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return np.float64(total)


@_inline
def _limited(log_r: np.float32) -> np.float32:
    above = log_r if log_r > _LOW else _LOW
    return above if above < _HIGH else _HIGH


@_inline
def _softplus(x: np.float32) -> np.float32:
    return (x if x > _ZERO else _ZERO) + _log1p(_exp(-abs(x)))


@_inline
def _sigmoid(x: np.float32) -> np.float32:
    t = _exp(-abs(x))
    return (_ONE if x > _ZERO else t) / (_ONE + t)


@_inline
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


@_inline
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
