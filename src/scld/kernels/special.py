"""Elementary and Gamma functions for compiled loops.

numba caches a compiled function by its own file: after a change here, delete the cache files
(``*.nbi``) of the functions that call these.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from scld.kernels.jit import FMA, njit

SHORT = 16  # Gamma functions of counts up to this are products
_LOG_FACTORIALS = gammaln(np.arange(1.0, 257.0))
_ONE, _TWO = np.float32(1), np.float32(2)
_ROUNDER = np.float32(12582912)  # 1.5 * 2^23: added, the last bits hold the nearest integer


@njit(inline=True)
def fast_exp(x: np.float32) -> np.float32:
    """exp of numbers below 88 in float32; 0 below -87.

    2^n times a polynomial in the remainder, with the coefficients of Cephes' expf.
    """
    x = x if x > np.float32(-87) else np.float32(-87)
    shifted = x * np.float32(1.44269504) + _ROUNDER
    n = shifted - _ROUNDER
    f = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4) * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * f * f + f + _ONE
    exponent = (np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)
    return p * np.int32(exponent).view(np.float32)


@njit(inline=True)
def fast_log1p(t: np.float32) -> np.float32:
    """log(1 + t) for t in [0, 1] in float32, by the series of artanh."""
    s = t / (_TWO + t)
    q = s * s
    p = np.float32(2 / 13) * q + np.float32(2 / 11)
    p = p * q + np.float32(2 / 9)
    p = p * q + np.float32(2 / 7)
    p = p * q + np.float32(2 / 5)
    p = p * q + np.float32(2 / 3)
    return (p * q + _TWO) * s


@njit(fastmath=FMA)
def short_gamma_ratio(r: float, x: int) -> tuple[float, float]:
    """Gamma(x + r) / Gamma(1 + r) as a product, and the derivative of its log by r."""
    product, slope = r + 1, 1.0
    for k in range(2, x):
        slope = slope * (r + k) + product
        product *= r + k
    return product, slope / product


@njit(fastmath=FMA)
def log_gamma_ratio(r: float, x: float) -> tuple[float, float]:
    """log of Gamma(x + r) / Gamma(1 + r) for x above `SHORT`, and its derivative by r.

    A short product, and Stirling's series for the rest (Abramowitz & Stegun 6.1.40, 6.3.18).
    """
    short, short_slope = short_gamma_ratio(r, SHORT)
    low, high = r + SHORT, r + x
    log_low, log_high = math.log(low), math.log(high)
    powers = (high - 0.5) * log_high - (low - 0.5) * log_low - (high - low)
    value = powers + _stirling(high) - _stirling(low)
    slope = log_high - log_low + _stirling_slope(high) - _stirling_slope(low)
    return math.log(short) + value, short_slope + slope


@njit(fastmath=FMA)
def _stirling(z: float) -> float:
    square = 1 / (z * z)
    return (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / z


@njit(fastmath=FMA)
def _stirling_slope(z: float) -> float:
    square = 1 / (z * z)
    return -0.5 / z - square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))


@njit(fastmath=FMA)
def log_factorial(x: float) -> float:
    """log(x!) of a count."""
    return _LOG_FACTORIALS[int(x)] if x < len(_LOG_FACTORIALS) else math.lgamma(x + 1)
