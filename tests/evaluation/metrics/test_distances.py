"""Distances, against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from gaussians import clouds
from scipy import stats

from scld.evaluation.metrics import energy_distance, mmd2, wasserstein


@pytest.mark.parametrize("p", [1, 2])
def test_wasserstein_is_an_optimal_assignment(rng, p):
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    real, synthetic = clouds(rng, 0.4)
    cost = cdist(real, synthetic) ** p
    expected = cost[linear_sum_assignment(cost)].mean() ** (1 / p)
    assert wasserstein(real, synthetic, p) == pytest.approx(expected)


def test_wasserstein_is_scipys_in_one_dimension(rng):
    real, synthetic = clouds(rng, 1.0, d=1)
    expected = stats.wasserstein_distance(real[:, 0], synthetic[:, 0])
    assert wasserstein(real, synthetic, 1) == pytest.approx(expected)


def test_wasserstein_of_a_shift_is_the_shift(rng):
    real = rng.normal(size=(60, 3))
    assert wasserstein(real, real + np.array([3, 4, 0]), 2) == pytest.approx(5)


def test_energy_distance_is_scipys_squared_in_one_dimension(rng):
    real, synthetic = clouds(rng, 0.5, d=1)
    expected = stats.energy_distance(real[:, 0], synthetic[:, 0]) ** 2
    assert energy_distance(real, synthetic) == pytest.approx(expected)


def test_mmd2_is_the_sum_over_pairs(rng):
    from sklearn.metrics.pairwise import rbf_kernel

    real, synthetic = clouds(rng, 0.5, n=40)
    both = np.concatenate([real, synthetic])
    square = ((both[:, None] - both[None]) ** 2).sum(axis=2)
    median = np.median(square[np.triu_indices(80, 1)])
    expected = []
    for factor in (0.25, 0.5, 1, 2, 4):
        pairs = [(real, real), (synthetic, synthetic), (real, synthetic)]
        xx, yy, xy = (rbf_kernel(a, b, gamma=1 / (factor * median)) for a, b in pairs)
        off = ~np.eye(40, dtype=bool)
        expected.append(xx[off].mean() + yy[off].mean() - 2 * xy.mean())
    assert mmd2(real, synthetic) == pytest.approx(np.mean(expected))


def test_mmd2_is_unbiased(rng):
    draws = [mmd2(*clouds(rng, n=30)) for _ in range(200)]
    assert abs(np.mean(draws)) < 4 * stats.sem(draws)
    assert min(draws) < 0
