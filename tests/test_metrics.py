"""The scores: each against an independent implementation or a closed form, and the traps that popular scores fall into."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from scld import metrics as m


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def clouds(rng, shift=0.0, n=120, d=4):
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift


# --- space


def test_log_normalise_is_scanpys(rng):
    import anndata as ad
    import scanpy as sc

    counts = sp.csr_matrix(rng.poisson(1.0, (30, 20)).astype(np.float32) + np.eye(30, 20, dtype=np.float32))
    adata = ad.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(m.log_normalise(counts).toarray(), adata.X.toarray(), rtol=1e-5)
    assert counts.data.max() == np.rint(counts.data.max())  # the counts themselves are left alone


def test_space_is_sklearns_pca_of_the_most_variable_genes(rng):
    from sklearn.decomposition import PCA

    cells = sp.csr_matrix(rng.normal(size=(200, 3)) * [9, 6, 3] @ rng.normal(size=(3, 50)) + rng.normal(size=(200, 50)) / 9 + 5)
    space = m.Space.fit(cells, n_genes=20, n_components=3)
    dense = cells.toarray()
    assert set(space.genes) == set(np.argsort(-dense.var(axis=0))[:20])
    expected = PCA(3, svd_solver="full").fit_transform(dense[:, space.genes])
    np.testing.assert_allclose(np.abs(space.project(space.dense(cells))), np.abs(expected), atol=1e-2)


def test_projection_is_centred_on_the_fitted_cells(rng):
    """The trap: without centring, the offset of the mean dwarfs what there is to see."""
    train, a, b = (sp.csr_matrix(rng.normal(size=(100, 30)) + 5) for _ in range(3))
    space = m.Space.fit(train, n_components=5)
    centred = [space.project(space.dense(cells)) for cells in (a, b)]
    uncentred = [space.dense(cells) @ space.components.T for cells in (a, b)]
    assert np.linalg.norm(centred[0].mean(axis=0)) < np.linalg.norm(uncentred[0].mean(axis=0)) / 3
    half_centred = m.wasserstein(centred[0], uncentred[1].astype(float))
    assert half_centred > 3 * m.wasserstein(*centred)


# --- two-sample test


def test_auc_is_sklearns(rng):
    from sklearn.metrics import roc_auc_score

    positive, negative = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 60).astype(float)
    assert m.auc(positive, negative) == pytest.approx(roc_auc_score(np.repeat([1, 0], [40, 60]), np.concatenate([positive, negative])))


def test_c2st_reaches_the_bayes_optimal_auc(rng):
    """Two Gaussians a distance d apart: no classifier can do better than Phi(d / sqrt 2), and a linear one gets there."""
    real, fake = clouds(rng, 0.5, n=1500, d=1)
    assert m.c2st(real, fake, m.linear) == pytest.approx(stats.norm.cdf(0.5 / np.sqrt(2)), abs=0.02)


@pytest.mark.parametrize("classifier", [m.forest, m.linear, m.boosting])
def test_c2st_tells_no_difference_where_there_is_none(rng, classifier):
    assert m.c2st(*clouds(rng, n=300), classifier) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("classifier", [m.forest, m.boosting])
def test_c2st_is_not_fooled_by_copies_across_folds(rng, classifier):
    """The trap: a cell repeated in training and test folds is remembered, and the copies look easy to tell from real cells."""
    from sklearn.model_selection import cross_val_predict

    real, fresh = clouds(rng, n=600)
    copied = fresh[rng.integers(0, 200, 600)]
    naive = cross_val_predict(classifier(0), np.concatenate([real, copied]), np.repeat([0, 1], 600), cv=5, method="predict_proba")[:, 1]
    assert m.auc(naive[600:], naive[:600]) > 0.8
    assert m.c2st(real, copied, classifier) == pytest.approx(0.5, abs=0.12)


def test_c2st_finds_a_fake_of_a_few_distinct_cells(rng):
    assert m.c2st(rng.normal(size=(200, 4)), np.repeat(rng.normal(size=(3, 4)), 60, axis=0), m.forest) > 0.95


def test_c2st_is_reproducible(rng):
    real, fake = clouds(rng, 0.3)
    assert m.c2st(real, fake, m.forest, seed=3) == m.c2st(real, fake, m.forest, seed=3)


# --- distances


@pytest.mark.parametrize("p", [1, 2])
def test_wasserstein_is_an_optimal_assignment(rng, p):
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    real, fake = clouds(rng, 0.4)
    cost = cdist(real, fake) ** p
    assert m.wasserstein(real, fake, p) == pytest.approx(cost[linear_sum_assignment(cost)].mean() ** (1 / p))


def test_wasserstein_is_scipys_in_one_dimension(rng):
    real, fake = clouds(rng, 1.0, d=1)
    assert m.wasserstein(real, fake, 1) == pytest.approx(stats.wasserstein_distance(real[:, 0], fake[:, 0]))


def test_wasserstein_of_a_shift_is_the_shift(rng):
    real = rng.normal(size=(60, 3))
    assert m.wasserstein(real, real + np.array([3, 4, 0]), 2) == pytest.approx(5)


def test_energy_distance_is_scipys_squared_in_one_dimension(rng):
    real, fake = clouds(rng, 0.5, d=1)
    assert m.energy_distance(real, fake) == pytest.approx(stats.energy_distance(real[:, 0], fake[:, 0]) ** 2)


def test_mmd2_is_the_sum_over_pairs(rng):
    from sklearn.metrics.pairwise import rbf_kernel

    real, fake = clouds(rng, 0.5, n=40)
    both = np.concatenate([real, fake])
    square = ((both[:, None] - both[None]) ** 2).sum(axis=2)
    median = np.median(square[np.triu_indices(80, 1)])
    expected = []
    for factor in (0.25, 0.5, 1, 2, 4):
        xx, yy, xy = (rbf_kernel(a, b, gamma=1 / (factor * median)) for a, b in [(real, real), (fake, fake), (real, fake)])
        off = ~np.eye(40, dtype=bool)
        expected.append(xx[off].mean() + yy[off].mean() - 2 * xy.mean())
    assert m.mmd2(real, fake) == pytest.approx(np.mean(expected))


def test_mmd2_is_unbiased(rng):
    draws = [m.mmd2(*clouds(rng, n=30)) for _ in range(200)]
    assert abs(np.mean(draws)) < 4 * stats.sem(draws)
    assert min(draws) < 0


# --- neighbours


def test_precision_recall_is_prdcs(rng):
    from prdc import compute_prdc

    real, fake = clouds(rng, 0.7)
    ours = m.precision_recall(real, fake, k=5)
    assert ours == pytest.approx(compute_prdc(real, fake, nearest_k=5))


def test_ilisi_weights_have_the_perplexity_of_tsne(rng):
    """scikit-learn's t-SNE finds the width of each row's Gaussian in squared distances; fed our distances it must find our weights."""
    from sklearn.manifold._utils import _binary_search_perplexity

    from scld.metrics.neighbours import _perplexity_weights

    distance = np.sort(rng.random((120, 90)) + 1, axis=1)
    theirs = _binary_search_perplexity(distance.astype(np.float32), 30, 0)
    np.testing.assert_allclose(_perplexity_weights(distance, 30), theirs, atol=1e-4)


def test_ilisi_of_sets_apart_is_one_and_of_mixed_near_two(rng):
    assert m.ilisi(*clouds(rng, 50)) == pytest.approx(1)
    assert m.ilisi(*clouds(rng, n=600)) > 1.85


# --- genes


def test_gene_moments_are_numpys(rng):
    dense = rng.poisson(0.7, (50, 8)).astype(np.float32)
    moments = m.gene_moments(sp.csr_matrix(dense))
    np.testing.assert_allclose(moments["mean"], dense.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments["variance"], dense.var(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments["detection"], 1 - (dense == 0).mean(axis=0))


def test_rmse_is_sklearns(rng):
    from sklearn.metrics import root_mean_squared_error

    a, b = rng.random(30), rng.random(30)
    assert m.rmse(a, b) == pytest.approx(root_mean_squared_error(a, b))


def test_detection_gap_sees_one_gene_that_rmse_hides():
    real = np.full(10_000, 0.5)
    fake = real.copy()
    fake[7] = 0.1
    assert m.rmse(real, fake) < 0.005
    assert m.detection_gap(real, fake, worst=1) == pytest.approx(0.4)


def test_ks_is_the_largest_gap_of_the_cumulative_distributions(rng):
    a, b = rng.normal(size=50), rng.normal(0.5, 1, 80)
    grid = np.concatenate([a, b])
    assert m.ks(a, b) == pytest.approx(max(abs((a <= x).mean() - (b <= x).mean()) for x in grid))


def test_correlations_are_numpys_and_constant_genes_correlate_with_nothing(rng):
    from scld.metrics.genes import correlations

    cells = rng.normal(size=(40, 5))
    np.testing.assert_allclose(correlations(cells), np.corrcoef(cells.T), atol=1e-12)
    cells[:, 2] = 1
    assert not correlations(cells)[2].any()


def test_correlation_agreement_is_lost_by_shuffling_genes(rng):
    mix = rng.normal(size=(8, 8))
    real, other = rng.normal(size=(2, 400, 8)) @ mix
    assert m.correlation_agreement(real, other) > 0.95
    assert m.correlation_agreement(real, rng.permuted(other, axis=0)) < 0.5


# --- labels


def typed(rng, n=40, genes=30, types=3):
    codes = np.repeat(np.arange(types), n)
    means = rng.random((types, genes)) * 3
    return sp.csr_matrix(rng.poisson(means[codes]).astype(float)), codes


def test_t_statistics_are_scipys(rng):
    log, codes = typed(rng)
    ours = m.t_statistics(log, codes, np.arange(3))
    for t in range(3):
        expected = stats.ttest_ind(log.toarray()[codes == t], log.toarray()[codes != t], equal_var=False).statistic
        np.testing.assert_allclose(ours[t], expected, atol=1e-9)


def test_log_fold_changes_of_two_types_are_their_difference(rng):
    log, codes = typed(rng, types=2)
    dense = log.toarray()
    np.testing.assert_allclose(m.log_fold_changes(log, codes, np.arange(2))[0], dense[codes == 0].mean(axis=0) - dense[codes == 1].mean(axis=0), atol=1e-12)


def test_marker_agreement_is_scipys_regression(rng):
    real, fake = rng.normal(size=(2, 3, 40))
    fake += 0.6 * real
    markers = m.top_markers(real, 10)
    x, y = (np.take_along_axis(changes, markers, axis=1).ravel() for changes in (real, fake))
    line = stats.linregress(x, y)
    assert m.marker_agreement(real, fake, markers) == pytest.approx({"slope": line.slope, "correlation": line.rvalue})


def test_de_recall_counts_shared_top_genes():
    real, fake = np.arange(10.0)[None], np.arange(10.0)[None].copy()
    fake[0, [9, 0]] = fake[0, [0, 9]]
    assert m.de_recall(real, real, 4) == [1]
    assert m.de_recall(real, fake, 4) == [0.75]


def test_label_predictor_learns_and_handles_one_type(rng):
    cells, codes = np.concatenate(clouds(rng, 6)), np.repeat([3, 8], 120)
    assert (m.label_predictor(cells, codes)(cells) == codes).mean() > 0.99
    assert (m.label_predictor(cells, np.full(240, 5))(cells) == 5).all()


def test_composition_distance_is_half_the_l1_distance():
    assert m.composition_distance(np.array([2, 2, 0]), np.array([0, 0, 9])) == 1
    assert m.composition_distance(np.array([1, 3]), np.array([10, 30])) == 0


# --- privacy


def test_nearest_distance_is_the_smallest_of_all(rng):
    from scipy.spatial.distance import cdist

    cells, others = clouds(rng)
    every = np.sort(cdist(cells, others), axis=1)
    for rank in (0, 1):
        np.testing.assert_allclose(m.nearest_distance(cells, others, rank), every[:, rank])


def test_nearer_training_of_fresh_cells_is_half_and_of_copies_one(rng):
    train, held_out, fresh = rng.normal(size=(3, 500, 5))
    to_train, to_held_out = m.nearest_distance(fresh, train), m.nearest_distance(fresh, held_out)
    assert m.nearer_training(to_train, to_held_out) == pytest.approx(0.5, abs=0.08)
    assert m.nearer_training(to_held_out, to_train) == pytest.approx(1 - m.nearer_training(to_train, to_held_out))
    assert m.nearer_training(m.nearest_distance(train, train), m.nearest_distance(train, held_out)) == 1


def test_membership_auc_of_fresh_cells_is_half_and_of_copies_one(rng):
    train, held_out, fresh = rng.normal(size=(3, 400, 5))
    assert m.membership_auc(fresh, train, held_out) == pytest.approx(0.5, abs=0.08)
    assert m.membership_auc(train, train, held_out) == 1


def test_donor_membership_adds_up_what_cells_whisper(rng):
    """A shift too small to see by cell is plain by donor: the reason for scoring donors."""
    donor = np.repeat([f"d{i}" for i in range(20)], 200)
    member = np.repeat(np.arange(20) < 10, 200)
    distance = rng.normal(size=4000) - 0.3 * member
    by_cell = m.auc(-distance[member], -distance[~member])
    by_donor = m.donor_membership_auc(distance, np.zeros(4000), donor, member)
    assert by_cell < 0.65
    assert by_donor > 0.95


def test_donor_membership_is_not_moved_by_composition(rng):
    """Donors with more cells of a loose type are not blamed for it."""
    codes = np.concatenate([rng.random(2000) < 0.9, rng.random(2000) < 0.1]).astype(int)
    donor, member = np.repeat([f"d{i}" for i in range(20)], 200), np.repeat([True, False], 2000)
    distance = 5.0 * codes + rng.normal(size=4000)
    assert m.auc(-distance[member], -distance[~member]) < 0.2
    assert 0.15 < m.donor_membership_auc(distance, codes, donor, member) < 0.85


def test_exact_copies_ignores_stored_zeros_and_order_of_entries(rng):
    dense = rng.poisson(1.0, (30, 12)).astype(np.float32) + np.eye(30, 12, dtype=np.float32)
    stored = sp.csr_matrix((np.array([1.0, 0.0]), (np.array([0, 0]), np.array([3, 5]))), shape=(1, 12))
    bare = sp.csr_matrix((np.array([1.0]), (np.array([0]), np.array([3]))), shape=(1, 12))
    assert m.exact_copies(stored, bare) == 1
    assert m.exact_copies(sp.csr_matrix(dense), sp.csr_matrix(dense[:15])) >= 0.5
    assert m.exact_copies(sp.csr_matrix(dense + 1), sp.csr_matrix(dense)) == 0


# --- validity


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("integers", {"cells": sp.csr_matrix([[1.5, 1], [1, 1]])}),
        ("non_negative", {"cells": sp.csr_matrix([[-1.0, 3], [1, 1]])}),
        ("finite", {"cells": sp.csr_matrix([[np.nan, 1], [1, 1]])}),
        ("gene_order", {"genes": ["B", "A"]}),
        ("known_labels", {"labels": ["x", "y", "z"]}),
        ("every_label", {"labels": ["x", "x"]}),
        ("no_empty_cell", {"cells": sp.csr_matrix([[0.0, 0], [1, 1]])}),
        ("library_range", {"cells": sp.csr_matrix([[90.0, 1], [1, 1]])}),
    ],
)
def test_each_validity_check_fails_on_what_it_is_for(check, change):
    sound = {
        "cells": sp.csr_matrix([[1.0, 1], [2, 1]]),
        "genes": ["A", "B"],
        "labels": ["x", "y"],
        "train_libraries": np.array([2.0, 3]),
        "train_genes": ["A", "B"],
        "train_labels": ["x", "y"],
    }
    assert all(m.validity(**sound).values())
    assert not m.validity(**{**sound, **change})[check]


# --- peers


def test_scdiffusion_mmd_is_the_published_sum(rng):
    from sklearn.decomposition import PCA
    from sklearn.metrics.pairwise import rbf_kernel

    real, fake = clouds(rng, 0.5, n=30, d=6)
    both = PCA(6).fit_transform(np.concatenate([real, fake]))
    square = ((both[:, None] - both[None]) ** 2).sum(axis=2)
    width = square.sum() / (60 * 60 - 60)
    kernel = sum(rbf_kernel(both, gamma=1 / (width * factor)) for factor in (0.25, 0.5, 1, 2, 4))
    expected = kernel[:30, :30].mean() + kernel[30:, 30:].mean() - kernel[:30, 30:].mean() - kernel[30:, :30].mean()
    assert m.scdiffusion_mmd(real, fake) == pytest.approx(expected, rel=1e-4)


def test_cfgen_mmd_is_the_published_sum(rng):
    from sklearn.metrics.pairwise import rbf_kernel

    real, fake = clouds(rng, 0.5, n=30)
    terms = [[rbf_kernel(a, b, gamma=1 / (2 * s**2)).mean() for a, b in [(real, real), (fake, fake), (real, fake)]] for s in (0.01, 0.1, 1, 10, 100)]
    assert m.cfgen_mmd(real, fake) == pytest.approx(sum(xx + yy - 2 * xy for xx, yy, xy in terms))


def test_fixed_widths_see_nothing_at_the_scale_of_counts(rng):
    """The trap: an MMD of fixed bandwidth cannot tell real from wrong where distances are large; one that follows the data can."""
    real, other, wrong = (1000 * cloud for cloud in (*clouds(rng, n=200), clouds(rng, 0.5, n=200)[1]))
    floor, value = m.cfgen_mmd(real, other), m.cfgen_mmd(real, wrong)
    assert value == pytest.approx(floor, rel=0.02)
    assert m.mmd2(real, wrong) > 10 * abs(m.mmd2(real, other))


# --- trivial fakes


@pytest.fixture
def counts(rng):
    depth = rng.lognormal(0, 0.5, (300, 1))
    return sp.csr_matrix(rng.poisson(depth * rng.gamma(1, 1, 40)).astype(np.float32))


def test_poisson_has_the_types_means_and_their_variance(counts, rng):
    made = m.poisson(counts, 4000, rng).toarray()
    mean = counts.toarray().mean(axis=0)
    np.testing.assert_allclose(made.mean(axis=0), mean, atol=6 * np.sqrt(mean.max() / 4000))
    np.testing.assert_allclose(made.var(axis=0), mean, atol=0.15 * mean.max() + 0.02)


def test_shuffle_keeps_every_gene_and_loses_what_joins_them(counts, rng):
    made = m.shuffle(counts, 300, rng).toarray()
    np.testing.assert_array_equal(np.sort(made, axis=0), np.sort(counts.toarray(), axis=0))
    off = ~np.eye(40, dtype=bool)
    real, fake = np.corrcoef(counts.toarray().T + 1e-9), np.corrcoef(made.T + 1e-9)
    assert abs(np.nanmean(fake[off])) < np.nanmean(real[off]) / 5


def test_bootstrap_hands_out_training_cells(counts, rng):
    assert m.exact_copies(m.bootstrap(counts, 100, rng), counts) == 1
