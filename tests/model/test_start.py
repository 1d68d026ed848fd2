import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from scld.model.start import (
    category_centres,
    covariances,
    discriminant,
    gene_loadings,
    held_out_components,
    one_hot,
    reliabilities,
    split_counts,
)
from scld.schema import MISSING


def varying(cells=2000, genes=60, seed=0, followers=10, depth=5.0):
    """Counts of genes, the first of which follow a hidden point, and these points."""
    rng = np.random.default_rng(seed)
    point = rng.standard_normal(cells)
    slopes = np.where(np.arange(genes) < followers, 0.5, 0.0)
    means = depth * rng.gamma(5.0, 0.2, genes) * np.exp(np.outer(point, slopes))
    return sp.csr_matrix(rng.poisson(means).astype(np.float32)), point


# Halves


def test_halves_are_binomial_and_add_up():
    counts = sp.csr_matrix(np.full((400, 50), 9.0, np.float32))
    first, second = split_counts(counts, seed=0)
    assert (first + second != counts).nnz == 0
    values = first.toarray()
    assert values.mean() == pytest.approx(4.5, abs=0.05)
    assert values.var() == pytest.approx(9 / 4, rel=0.03)
    assert first.nnz < counts.nnz  # no stored zeros


def test_halves_of_poisson_counts_are_independent():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(4.0, (50_000, 1)).astype(np.float32))
    first, second = (half.toarray()[:, 0] for half in split_counts(counts, seed=1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015


# Components


def test_the_reliability_of_all_counts_is_the_squared_correlation_with_the_truth():
    """By a simulation in which the truth is known."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((20_000, 3))
    noise = np.array([0.2, 1.0, 5.0])
    first, second = (truth + noise * rng.standard_normal(truth.shape) for _ in range(2))
    whole = [np.corrcoef(truth[:, k], first[:, k] + second[:, k])[0, 1] ** 2 for k in range(3)]
    found = reliabilities((first, second))[1]
    np.testing.assert_allclose(found[1:], whole[1:], atol=0.02)
    assert found[0] == pytest.approx(0.98)  # at most


def test_components_of_noise_are_unreliable_in_cells_they_were_not_fitted_to():
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(1.0, (300, 500)).astype(np.float32) + (np.arange(500) < 1))
    halves = split_counts(counts, seed=0)
    assert (held_out_components(halves, 500.0, 8).reliability < 0.2).all()


def test_a_component_that_is_there_is_reliable_and_the_others_are_not():
    counts, _ = varying()
    held_out = held_out_components(split_counts(counts, seed=0), 300.0, 4)
    assert held_out.reliability[0] > 0.8
    assert (held_out.reliability[1:] < 0.2).all()
    assert held_out.covariance[0] > 5 * held_out.covariance[1:].max()


# Loadings


def test_loadings_are_the_slopes_of_log_expression():
    """The genes that do not follow the point differ from those that do by the simulated slope."""
    counts, point = varying(depth=3.0)
    halves = split_counts(counts, seed=0)
    given = (point[:, None], point[:, None])
    proportions = np.asarray(counts.mean(axis=0)) / counts.mean(axis=0).sum()
    found = gene_loadings(halves, given, np.zeros(len(point), int), proportions)[:, 0]
    assert found[:10].mean() - found[10:].mean() == pytest.approx(0.5, rel=0.15)
    assert np.abs(found[10:] - found[10:].mean()).max() < 0.1


def test_without_a_relation_loadings_are_about_zero():
    counts, _ = varying(followers=0)
    noise = np.random.default_rng(5).standard_normal((2000, 3))
    proportions = np.asarray(counts.mean(axis=0)) / counts.mean(axis=0).sum()
    halves = split_counts(counts, seed=0)
    found = gene_loadings(halves, (noise, noise), np.zeros(2000, int), proportions)
    assert np.sqrt((found**2).mean()) < 0.01


def test_differences_between_groups_give_no_loadings():
    rng = np.random.default_rng(0)
    group = np.arange(1000) % 2
    rates = np.array([[1.0] * 20, [1.0] * 10 + [6.0] * 10])
    counts = sp.csr_matrix(rng.poisson(rates[group]).astype(np.float32))
    points = 3 * group[:, None] + rng.standard_normal((1000, 1))
    proportions = rates / rates.sum(axis=1, keepdims=True)
    found = gene_loadings(split_counts(counts, 0), (points, points), group, proportions)
    assert np.abs(found).max() < 0.1


# Categories


def test_centres_are_means_and_those_of_a_second_label_what_the_first_leaves():
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [MISSING, MISSING]])
    points = np.array([[0.0], [2.0], [10.0], [12.0], [99.0]])
    centres, left = category_centres(points, codes, [2, 3])
    assert centres[:, 0].tolist() == [1, 11, -1, 1, 0]
    assert left[:, 0].tolist() == [0, 0, 0, 0, 99]
    assert one_hot(codes[[0, 4]], [2, 3]).tolist() == [[1, 0, 1, 0, 0], [0] * 5]
    assert category_centres(points, codes[:, :0], [])[0].shape == (0, 1)


def test_covariances_are_those_of_numpy():
    first, second = np.random.default_rng(0).standard_normal((2, 50, 2))
    expected = [np.cov(first[:, k], second[:, k], ddof=0)[0, 1] for k in range(2)]
    np.testing.assert_allclose(covariances((first, second)), expected)


def test_memberships_are_those_of_scikit_learn():
    """Of two categories that are near each other, as many cells of each."""
    rng = np.random.default_rng(0)
    codes = np.arange(400) % 2
    points = rng.standard_normal((400, 3)) + 0.8 * codes[:, None]
    points -= points.mean(axis=0)
    centres, within = category_centres(points, codes[:, None], [2])
    weights, offsets = discriminant(centres, within, np.zeros(3), np.array([200, 200]))
    scores = points @ weights.T + offsets
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(points, codes).predict_proba(points)
    np.testing.assert_allclose(softmax(scores, axis=1), expected, atol=0.01)


def test_memberships_of_few_cells_do_not_depend_on_the_point():
    centres, within = np.eye(2), np.random.default_rng(0).standard_normal((100, 2))
    weights, offsets = discriminant(centres, within, np.zeros(2), np.array([96, 4]))
    assert not weights[1].any()
    assert offsets[1] == pytest.approx(np.log(0.05))


def test_the_boundary_between_far_categories_is_soft_and_in_the_middle():
    centres, within = 40 * np.array([[1.0], [-1.0]]), np.random.default_rng(0).normal(size=(99, 1))
    weights, offsets = discriminant(centres, within, np.zeros(1), np.array([50, 49]))
    assert np.diff(weights[:, 0] * 0 + offsets) == 0
    assert offsets.tolist() == [-3, -3]
    assert (weights[:, 0] * centres[:, 0]).tolist() == pytest.approx([6, 6])
