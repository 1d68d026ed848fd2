"""Metrics of genes, against numpy, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scld.evaluation.metrics import correlation_agreement, detection_gap, gene_moments, ks, rmse


def test_gene_moments_are_numpys(rng):
    dense = rng.poisson(0.7, (50, 8)).astype(np.float32)
    moments = gene_moments(sp.csr_matrix(dense))
    np.testing.assert_allclose(moments["mean"], dense.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments["variance"], dense.var(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments["detection"], 1 - (dense == 0).mean(axis=0))


def test_rmse_is_sklearns(rng):
    from sklearn.metrics import root_mean_squared_error

    a, b = rng.random(30), rng.random(30)
    assert rmse(a, b) == pytest.approx(root_mean_squared_error(a, b))


def test_detection_gap_detects_one_gene_that_rmse_averages_out():
    real = np.full(10_000, 0.5)
    synthetic = real.copy()
    synthetic[7] = 0.1
    assert rmse(real, synthetic) < 0.005
    assert detection_gap(real, synthetic, worst=1) == pytest.approx(0.4)


def test_ks_is_the_largest_gap_of_the_cumulative_distributions(rng):
    a, b = rng.normal(size=50), rng.normal(0.5, 1, 80)
    grid = np.concatenate([a, b])
    assert ks(a, b) == pytest.approx(max(abs((a <= x).mean() - (b <= x).mean()) for x in grid))


def test_correlations_are_numpys_and_zero_for_constant_genes(rng):
    from scld.evaluation.metrics.genes import correlations

    cells = rng.normal(size=(40, 5))
    np.testing.assert_allclose(correlations(cells), np.corrcoef(cells.T), atol=1e-12)
    cells[:, 2] = 1
    assert not correlations(cells)[2].any()


def test_correlation_agreement_is_lost_by_shuffling_genes(rng):
    mix = rng.normal(size=(8, 8))
    real, other = rng.normal(size=(2, 400, 8)) @ mix
    assert correlation_agreement(real, other) > 0.95
    assert correlation_agreement(real, rng.permuted(other, axis=0)) < 0.5
