"""Metrics of labels, against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from gaussians import clouds
from scipy import stats

from scld.evaluation.metrics import (
    accuracy,
    composition_distance,
    de_recall,
    label_predictor,
    macro_f1,
    t_statistics,
)


def typed(rng, n=40, genes=30, types=3):
    codes = np.repeat(np.arange(types), n)
    means = rng.random((types, genes)) * 3
    return sp.csr_matrix(rng.poisson(means[codes]).astype(float)), codes


def test_t_statistics_are_scipys(rng):
    log, codes = typed(rng)
    ours, dense = t_statistics(log, codes, np.arange(3)), log.toarray()
    for t in range(3):
        expected = stats.ttest_ind(dense[codes == t], dense[codes != t], equal_var=False)
        np.testing.assert_allclose(ours[t], expected.statistic, atol=1e-9)


def test_de_recall_counts_shared_top_genes():
    real, synthetic = np.arange(10.0)[None], np.arange(10.0)[None].copy()
    synthetic[0, [9, 0]] = synthetic[0, [0, 9]]
    assert de_recall(real, real, 4) == 1
    assert de_recall(real, synthetic, 4) == 0.75


def test_macro_f1_and_accuracy_are_sklearns(rng):
    from sklearn.metrics import accuracy_score, f1_score

    codes, predicted = rng.integers(0, 4, (2, 90))
    expected = f1_score(codes, predicted, average="macro")
    assert macro_f1(codes, predicted, np.arange(4)) == pytest.approx(expected)
    assert accuracy(codes, predicted) == pytest.approx(accuracy_score(codes, predicted))


def test_label_predictor_learns_and_handles_one_type(rng):
    cells, codes = np.concatenate(clouds(rng, 6)), np.repeat([3, 8], 120)
    assert (label_predictor(cells, codes)(cells) == codes).mean() > 0.99
    assert (label_predictor(cells, np.full(240, 5))(cells) == 5).all()


def test_composition_distance_is_half_the_l1_distance():
    assert composition_distance(np.array([2, 2, 0]), np.array([0, 0, 9])) == 1
    assert composition_distance(np.array([1, 3]), np.array([10, 30])) == 0
