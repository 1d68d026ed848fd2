"""The two-sample test, against closed forms; and copies across folds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gaussians import clouds
from scipy import stats

from scld.evaluation.metrics import auc, boosting, c2st, forest, largest_auc, linear


def test_auc_is_sklearns(rng):
    from sklearn.metrics import roc_auc_score

    positive, negative = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 60).astype(float)
    scores, is_positive = np.concatenate([positive, negative]), np.repeat([1, 0], [40, 60])
    assert auc(positive, negative) == pytest.approx(roc_auc_score(is_positive, scores))


def test_largest_auc_is_that_of_the_best_classifier(rng):
    pairs = [(rng.normal(size=50) + shift, rng.normal(size=50)) for shift in (0, 1, 0.5)]
    assert largest_auc(*pairs) == max(auc(*pair) for pair in pairs)


def test_c2st_reaches_the_bayes_optimal_auc(rng):
    """Two normal distributions a distance d apart: the best AUC is Phi(d / sqrt 2)."""
    real, synthetic = clouds(rng, 0.5, n=1500, d=1)
    best = stats.norm.cdf(0.5 / np.sqrt(2))
    assert c2st(real, synthetic, linear) == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("classifier", [forest, linear, boosting])
def test_c2st_is_at_chance_for_equal_distributions(rng, classifier):
    assert c2st(*clouds(rng, n=300), classifier) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("classifier", [forest, boosting])
def test_c2st_does_not_count_copies_across_folds(rng, classifier):
    """A classifier remembers a cell that is in training and test folds; the AUC is too large."""
    from sklearn.model_selection import cross_val_predict

    real, fresh = clouds(rng, n=600)
    copied = fresh[rng.integers(0, 200, 600)]
    cells, is_synthetic = np.concatenate([real, copied]), np.repeat([0, 1], 600)
    options = {"cv": 5, "method": "predict_proba"}
    naive = cross_val_predict(classifier(0), cells, is_synthetic, **options)[:, 1]
    assert auc(naive[600:], naive[:600]) > 0.8
    assert c2st(real, copied, classifier) == pytest.approx(0.5, abs=0.12)


def test_c2st_distinguishes_a_few_cells_repeated_many_times(rng):
    real, repeated = rng.normal(size=(200, 4)), np.repeat(rng.normal(size=(3, 4)), 60, axis=0)
    assert c2st(real, repeated, forest) > 0.95


def test_c2st_is_reproducible(rng):
    real, synthetic = clouds(rng, 0.3)
    first, second = (c2st(real, synthetic, forest, seed=3) for _ in range(2))
    assert first == second


def test_the_warning_filters_of_the_process_are_left_alone():
    cells, before = np.random.default_rng(0).normal(size=(2, 100, 5)), list(warnings.filters)
    c2st(*cells, forest)
    assert list(warnings.filters) == before
