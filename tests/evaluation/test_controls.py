"""Negative controls: right in what they keep, wrong in what they lose."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scld.evaluation.controls import bootstrap, poisson, shuffle
from scld.evaluation.metrics import exact_copies


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def counts(rng):
    depth = rng.lognormal(0, 0.5, (300, 1))
    return sp.csr_matrix(rng.poisson(depth * rng.gamma(1, 1, 40)).astype(np.float32))


def test_poisson_has_the_means_of_the_type_and_no_more_variance(counts, rng):
    made = poisson(counts, 4000, rng).toarray()
    mean = counts.toarray().mean(axis=0)
    np.testing.assert_allclose(made.mean(axis=0), mean, atol=6 * np.sqrt(mean.max() / 4000))
    np.testing.assert_allclose(made.var(axis=0), mean, atol=0.15 * mean.max() + 0.02)


def test_shuffle_keeps_each_gene_and_removes_correlations(counts, rng):
    made = shuffle(counts, 300, rng).toarray()
    np.testing.assert_array_equal(np.sort(made, axis=0), np.sort(counts.toarray(), axis=0))
    off = ~np.eye(40, dtype=bool)
    real, synthetic = np.corrcoef(counts.toarray().T + 1e-9), np.corrcoef(made.T + 1e-9)
    assert abs(np.nanmean(synthetic[off])) < np.nanmean(real[off]) / 5


def test_bootstrap_copies_training_cells(counts, rng):
    assert exact_copies(bootstrap(counts, 100, rng), counts) == 1
