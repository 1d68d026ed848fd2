"""Metrics of neighbours, against prdc and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from gaussians import clouds

from scld.evaluation.metrics import coverage, density, ilisi, neighbourhoods, precision, recall


def test_precision_recall_density_and_coverage_are_prdcs(rng):
    from prdc import compute_prdc

    real, synthetic = clouds(rng, 0.7)
    in_real, in_synthetic = neighbourhoods(real, synthetic, k=5)
    ours = {
        "precision": precision(in_real),
        "recall": recall(in_synthetic),
        "density": density(in_real, k=5),
        "coverage": coverage(in_real),
    }
    assert ours == pytest.approx(compute_prdc(real, synthetic, nearest_k=5))


def test_ilisi_weights_have_the_perplexity_of_tsne(rng):
    """scikit-learn's t-SNE solves the same equation for the width of each row's Gaussian kernel."""
    from sklearn.manifold._utils import _binary_search_perplexity

    from scld.evaluation.metrics.neighbours import _perplexity_weights

    distance = np.sort(rng.random((120, 90)) + 1, axis=1)
    theirs = _binary_search_perplexity(distance.astype(np.float32), 30, 0)
    np.testing.assert_allclose(_perplexity_weights(distance, 30), theirs, atol=1e-4)


def test_ilisi_of_separate_sets_is_one_and_of_mixed_sets_near_two(rng):
    assert ilisi(*clouds(rng, 50)) == pytest.approx(1)
    assert ilisi(*clouds(rng, n=600)) > 1.85
