import numpy as np
import pytest
from scipy.special import digamma, gammaln

from scld.kernels.jit import njit
from scld.kernels.special import (
    SHORT,
    fast_exp,
    fast_log1p,
    log_factorial,
    log_gamma_ratio,
    short_gamma_ratio,
)


@njit()
def exps(x, out):
    for i in range(len(x)):
        out[i] = fast_exp(x[i])


@njit()
def log1ps(x, out):
    for i in range(len(x)):
        out[i] = fast_log1p(x[i])


def values(function, x):
    x = np.asarray(x, np.float32)
    out = np.empty_like(x)
    function(x, out)
    return x.astype(np.float64), out


def test_exp_is_numpys_to_float32():
    x, found = values(exps, [*np.linspace(-86, 87.9, 100_001), 0, -1e-30, 1e-30])
    np.testing.assert_allclose(found, np.exp(x), rtol=3e-7)


def test_exp_of_large_negative_numbers_vanishes():
    _, found = values(exps, [-87.5, -100, -1e10, -np.inf])
    assert (found <= np.exp(-86)).all()
    assert (found >= 0).all()


def test_log1p_is_numpys_to_float32():
    x, found = values(log1ps, [0, 1e-30, 1e-7, *np.linspace(0, 1, 100_001)])
    np.testing.assert_allclose(found, np.log1p(x), rtol=4e-7)


@pytest.mark.parametrize("r", [0.01, 0.7, 5.0, 1e4])
def test_gamma_ratios_are_scipys(r):
    short, long = np.arange(2, SHORT + 1), np.array([SHORT + 1.0, 64, 65, 1000, 1e6])
    product, slope = np.transpose([short_gamma_ratio(r, n) for n in short])
    np.testing.assert_allclose(np.log(product), gammaln(short + r) - gammaln(1 + r), rtol=1e-9)
    np.testing.assert_allclose(slope, digamma(short + r) - digamma(1 + r), rtol=1e-9)
    log_ratio, slope = np.transpose([log_gamma_ratio(r, n) for n in long])
    np.testing.assert_allclose(log_ratio, gammaln(long + r) - gammaln(1 + r), rtol=1e-9)
    np.testing.assert_allclose(slope, digamma(long + r) - digamma(1 + r), rtol=1e-9)


def test_log_factorials_are_scipys():
    counts = [0.0, 1, 2, 16, 254, 255, 256, 257, 30_000]
    found = [log_factorial(count) for count in counts]
    np.testing.assert_allclose(found, gammaln(np.array(counts) + 1), rtol=1e-12)
