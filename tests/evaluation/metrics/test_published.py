"""The variants that scDiffusion and CFGen publish, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from gaussians import clouds

from scld.evaluation.metrics import cfgen_mmd, mmd2, scdiffusion_mmd


def test_scdiffusion_mmd_is_the_published_sum(rng):
    from sklearn.decomposition import PCA
    from sklearn.metrics.pairwise import rbf_kernel

    real, synthetic = clouds(rng, 0.5, n=30, d=6)
    both = PCA(6).fit_transform(np.concatenate([real, synthetic]))
    square = ((both[:, None] - both[None]) ** 2).sum(axis=2)
    width = square.sum() / (60 * 60 - 60)
    kernel = sum(rbf_kernel(both, gamma=1 / (width * factor)) for factor in (0.25, 0.5, 1, 2, 4))
    within = kernel[:30, :30].mean() + kernel[30:, 30:].mean()
    expected = within - kernel[:30, 30:].mean() - kernel[30:, :30].mean()
    assert scdiffusion_mmd(real, synthetic) == pytest.approx(expected, rel=1e-4)


def test_cfgen_mmd_is_the_published_sum(rng):
    from sklearn.metrics.pairwise import rbf_kernel

    real, synthetic = clouds(rng, 0.5, n=30)
    expected = 0
    for s in (0.01, 0.1, 1, 10, 100):
        pairs = [(real, real), (synthetic, synthetic), (real, synthetic)]
        xx, yy, xy = (rbf_kernel(a, b, gamma=1 / (2 * s**2)).mean() for a, b in pairs)
        expected += xx + yy - 2 * xy
    assert cfgen_mmd(real, synthetic) == pytest.approx(expected)


def test_fixed_widths_do_not_respond_at_the_scale_of_counts(rng):
    """An MMD of fixed bandwidth is constant where distances are large; ours follows the data."""
    sets = (*clouds(rng, n=200), clouds(rng, 0.5, n=200)[1])
    real, other, wrong = (1000 * cells for cells in sets)
    assert cfgen_mmd(real, wrong) == pytest.approx(cfgen_mmd(real, other), rel=0.02)
    assert mmd2(real, wrong) > 10 * abs(mmd2(real, other))
