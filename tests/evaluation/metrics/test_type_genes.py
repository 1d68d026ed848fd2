"""Metrics of genes within types, against dense numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from scld.evaluation.metrics import (
    effect_correlation,
    effect_slope,
    effects,
    gene_quantiles,
    geometric_ratio,
    identity_genes,
    mean_z,
    outside_means,
    share_outside,
    share_within,
    spread_z,
    type_moments,
    variance_ratio,
)
from scld.evaluation.metrics.type_genes import central_range

TYPES = np.array([2, 5, 9])


def typed(rng, n=40, genes=25):
    """Sparse counts per 10,000 of three types, and their logarithm."""
    codes = rng.permutation(np.repeat(TYPES, n))
    rate = rng.gamma(0.5, 6, (10, genes))
    cells = rng.poisson(rate[codes] * rng.gamma(2, 0.5, (len(codes), 1))) * 1.5
    return cells, sp.csr_matrix(np.log1p(cells)), codes


@pytest.fixture
def both(rng):
    return typed(rng), typed(rng)


def moments_of(one):
    return type_moments(one[1], one[2], TYPES)


def test_moments_are_numpys(both):
    (cells, _, codes), moments = both[0], moments_of(both[0])
    for i, t in enumerate(TYPES):
        inside = cells[codes == t]
        assert moments.cells[i] == len(inside)
        np.testing.assert_allclose(moments.mean[i], inside.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(moments.variance[i], inside.var(axis=0, ddof=1), atol=1e-9)
        np.testing.assert_allclose(moments.detected[i], (inside > 0).sum(axis=0))
        np.testing.assert_allclose(moments.rest[i], cells[codes != t].mean(axis=0), rtol=1e-9)


def test_cells_of_other_types_are_part_of_the_rest(both):
    cells, log, codes = both[0]
    moments = type_moments(log, codes, TYPES[:1])
    np.testing.assert_allclose(moments.mean[0], cells[codes == TYPES[0]].mean(axis=0))
    np.testing.assert_allclose(moments.rest[0], cells[codes != TYPES[0]].mean(axis=0))


def test_mean_z_is_scipys_welch(both):
    z = mean_z(*map(moments_of, both))
    for i, t in enumerate(TYPES):
        real, synthetic = (cells[codes == t] for cells, _, codes in both)
        expected = stats.ttest_ind(synthetic, real, equal_var=False).statistic
        np.testing.assert_allclose(z[i], np.nan_to_num(expected), atol=1e-6)


def test_spread_z_is_scipys_welch_of_the_deviations(both):
    moments = tuple(map(moments_of, both))
    (_, log_a, codes_a), (_, log_b, codes_b) = both
    z = spread_z((log_a, log_b), (codes_a, codes_b), moments, TYPES)
    for i, t in enumerate(TYPES):
        real, synthetic = (cells[codes == t] for cells, _, codes in both)
        common = ((real > 0).sum(axis=0) > 5) & ((synthetic > 0).sum(axis=0) > 5)
        real, synthetic = real[:, common], synthetic[:, common]
        centre = (real.mean(axis=0) + synthetic.mean(axis=0)) / 2
        pair = abs(synthetic - centre), abs(real - centre)
        expected = stats.ttest_ind(*pair, equal_var=False).statistic
        np.testing.assert_allclose(z[i, common], expected, atol=1e-6)


def test_variance_ratio_is_numpys(both):
    ratio = variance_ratio(*map(moments_of, both))
    for i, t in enumerate(TYPES):
        real, synthetic = (cells[codes == t].var(axis=0) for cells, _, codes in both)
        vary = (real > 0) & (synthetic > 0)
        np.testing.assert_allclose(ratio[i, vary], synthetic[vary] / real[vary], rtol=1e-6)


def test_a_variance_that_is_lost_is_off_and_a_constant_gene_is_not():
    codes, types = np.zeros(30, dtype=int), np.array([0])
    vary, constant = np.arange(30.0)[:, None], np.full((30, 1), 4.0)
    a, b = (
        type_moments(sp.csr_matrix(np.log1p(np.hstack([one, constant]))), codes, types)
        for one in (vary, constant)
    )
    log_ratio = np.log2(variance_ratio(a, b))
    assert log_ratio[0, 0] < -10
    assert log_ratio[0, 1] == pytest.approx(0, abs=0.01)


def test_outside_means_are_those_of_the_other_types_in_the_real_composition(rng):
    (cells, log, codes), (cells_b, log_b, codes_b) = typed(rng), typed(rng, n=60)
    kept = (codes_b != 5) | (np.cumsum(codes_b == 5) <= 35)  # another composition
    cells_b, log_b, codes_b = cells_b[kept], log_b[kept], codes_b[kept]
    outside = outside_means(type_moments(log, codes, TYPES), type_moments(log_b, codes_b, TYPES))
    np.testing.assert_allclose(outside.real[0], cells[codes != 2].mean(axis=0))
    halves = [cells_b[codes_b == t] for t in (5, 9)]
    np.testing.assert_allclose(outside.synthetic[0], sum(h.mean(axis=0) for h in halves) / 2)
    real = [cells[codes == t] for t in (5, 9)]
    error = sum(h.var(axis=0, ddof=1) / len(h) for h in [*halves, *real]) / 4
    difference = outside.synthetic[0] - outside.real[0]
    vary = error > 0
    np.testing.assert_allclose(outside.z[0, vary], (difference / np.sqrt(error))[vary], rtol=1e-6)


def test_another_composition_alone_is_no_leak(rng):
    _, log, codes = typed(rng, n=90)
    kept = (codes != 5) | (np.cumsum(codes == 5) <= 45)
    real = type_moments(log, codes, TYPES)
    made = type_moments(log[kept], codes[kept], TYPES)
    outside = outside_means(real, made)
    assert abs(outside.z).max() < 3
    assert abs(made.rest - real.rest).max() > abs(outside.synthetic - real.rest).max()


def test_effects_slope_and_correlation_are_numpys(both, rng):
    markers = np.array([rng.permutation(25)[:10] for _ in TYPES])
    x, y = [], []
    for i, t in enumerate(TYPES):
        for cells, values in ((both[0], x), (both[1], y)):
            means = [cells[0][mask].mean(axis=0) for mask in (cells[2] == t, cells[2] != t)]
            values.extend(np.log2((means[0] + 0.1) / (means[1] + 0.1))[markers[i]])
    real, synthetic = (moments_of(one).effects for one in both)
    slope = np.linalg.lstsq(np.array(x)[:, None], np.array(y), rcond=None)[0][0]
    assert effect_slope(real, synthetic, markers) == pytest.approx(slope)
    expected = stats.pearsonr(x, y).statistic
    assert effect_correlation(real, synthetic, markers) == pytest.approx(expected)


def test_slope_sees_a_loss_that_is_the_same_for_every_marker():
    """A slope with an intercept would be 1."""
    real, markers = np.array([[3.0, 4.0, 5.0]]), np.array([[0, 1, 2]])
    assert effect_slope(real, real - 1, markers) < 0.8
    assert effect_slope(real, 1.3 * real, markers) == pytest.approx(1.3)
    assert np.isnan(effect_slope(0 * real, real, markers))
    assert effect_correlation(real, 0 * real, markers) == 0


def test_effects_are_finite_for_genes_that_are_not_there():
    assert effects(np.zeros((1, 1)), np.full((1, 1), 25.5))[0, 0] == pytest.approx(-8)


def test_identity_genes_are_the_most_abundant_specific_ones(both):
    cells, _, codes = both[0]
    found = identity_genes(moments_of(both[0]), TYPES)
    for t in TYPES:
        inside, rest = cells[codes == t].mean(axis=0), cells[codes != t].mean(axis=0)
        specific = [g for g in range(25) if np.log2((inside[g] + 0.1) / (rest[g] + 0.1)) >= 1]
        expected = sorted(specific, key=lambda g: -inside[g])[:10]
        np.testing.assert_array_equal(found[t], expected)


def test_types_without_specific_genes_or_with_few_cells_have_no_identity_genes(rng):
    cells = rng.poisson(5, (80, 6))
    cells[70:, 0] += 50
    log, types = sp.csr_matrix(np.log1p(cells)), np.array([0, 1])
    assert not identity_genes(type_moments(log, np.repeat([0, 1], [70, 10]), types), types)
    assert not identity_genes(type_moments(log, np.repeat([0, 1], 40), types), types).get(0)


def test_quantiles_and_ranges_are_numpys(both):
    cells, log, _ = both[0]
    genes = np.array([3, 1])
    expected = np.quantile(cells[:, genes], (0.05, 0.95), axis=0)
    np.testing.assert_allclose(gene_quantiles(log, genes, (0.05, 0.95)), expected, atol=1e-9)
    np.testing.assert_allclose(central_range(log, genes), expected[1] - expected[0], atol=1e-9)


def test_shares_and_ratios_have_closed_forms():
    assert share_outside(np.array([-3.5, 3, 0, 9.0]), 3) == 0.5
    assert share_within(np.array([10.0, 10, 0]), np.array([11.4, 11.6, 0]), 0.15) == 2 / 3
    real, synthetic = np.array([1.9, 0.0]), np.array([0.9, 0.3])
    assert geometric_ratio(real, synthetic) == pytest.approx(stats.gmean([0.5, 4]))


def test_log_normalised_input_in_single_precision_is_exact_enough(both):
    cells, log, codes = both[0]
    moments = type_moments(log.astype(np.float32), codes, TYPES)
    expected = np.stack([cells[codes == t].mean(axis=0) for t in TYPES])
    np.testing.assert_allclose(moments.mean, expected, rtol=1e-5)
