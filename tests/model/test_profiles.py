import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import gamma, nbinom

from scld.model.profiles import category_profiles, shrunken_ratios, within_dispersions
from scld.schema import MISSING

RNG = np.random.default_rng(0)
NO_LABELS = np.zeros((600, 0), np.int64)


def simulated(log_ratios, cells=300, genes=200, dispersion=1e6, depth=2000, seed=0):
    """Two types of which the second has these log ratios to the first, and their codes."""
    rng = np.random.default_rng(seed)
    base = rng.dirichlet(np.full(genes, 0.5))
    types = np.stack([base, base * np.exp(log_ratios)])
    codes = np.arange(2 * cells) % 2
    means = depth * types[codes] / types[codes].sum(axis=1, keepdims=True)
    counts = nbinom.rvs(dispersion, dispersion / (dispersion + means), random_state=rng)
    return sp.csr_matrix(counts), codes[:, None], types / types.sum(axis=1, keepdims=True)


def test_ratios_are_posterior_means_under_the_prior_that_they_come_from():
    """By integration over the true prior, which the estimate has to find from the counts."""
    genes, rng = 5000, np.random.default_rng(0)
    means = np.where(rng.random(genes) < 0.9, 1.0, 8.0)
    ratios = means * gamma.rvs(16, scale=1 / 16, size=genes, random_state=rng)
    expected = rng.choice([0.5, 2.0, 10.0], genes)
    observed = rng.poisson(ratios * expected)
    estimated = shrunken_ratios(observed, expected, np.ones(genes))
    joint = [
        share * nbinom.pmf(observed, 16, 16 / (16 + mean * expected))
        for share, mean in ((0.9, 1.0), (0.1, 8.0))
    ]
    means = [(16 + observed) / (16 / mean + expected) for mean in (1.0, 8.0)]
    bayes = (joint[0] * means[0] + joint[1] * means[1]) / (joint[0] + joint[1])
    error, least = np.square(estimated - ratios).mean(), np.square(bayes - ratios).mean()
    assert least <= error < 1.1 * least < np.square(observed / expected - ratios).mean()


def test_many_counts_are_not_shrunk_and_few_are():
    expected = np.array([1e5] * 50 + [0.01] * 50)
    observed = np.concatenate([1e5 * np.geomspace(0.1, 10, 50), np.zeros(50)])
    ratios = shrunken_ratios(observed, expected, np.ones(100))
    np.testing.assert_allclose(ratios[:50], np.geomspace(0.1, 10, 50), rtol=1e-3)
    assert np.ptp(ratios[50:]) == 0


def test_overdispersed_counts_are_shrunk_more():
    observed, expected = np.array([10.0] * 99 + [30]), np.full(100, 10.0)
    poisson, noisy = (shrunken_ratios(observed, expected, np.full(100, f)) for f in (1.0, 8.0))
    assert 1 < noisy[-1] < poisson[-1] <= 3


def test_profiles_are_the_log_ratios_of_types():
    log_ratios = np.zeros(200)
    log_ratios[:20] = 1.5
    counts, codes, types = simulated(log_ratios)
    profiles = category_profiles(counts, codes, [2])
    abundant = types.min(axis=0) > 1e-3
    difference = (profiles[1] - profiles[0])[abundant]
    truth = np.log(types[1] / types[0])[abundant]
    assert np.abs(difference - truth).max() < 0.15
    assert np.corrcoef(difference, truth)[0, 1] > 0.99


def test_categories_that_do_not_differ_have_no_profile():
    counts, codes, _ = simulated(np.zeros(200))
    assert np.abs(category_profiles(counts, codes, [2])).max() < 0.05


def test_a_second_label_gets_what_the_first_does_not_explain():
    """The second label is nearly the first again."""
    log_ratios = np.zeros(200)
    log_ratios[:20] = 1.5
    counts, codes, _ = simulated(log_ratios)
    second = codes.copy()
    second[:100] = 0
    profiles = category_profiles(counts, np.concatenate([codes, second], axis=1), [2, 2])
    assert np.abs(profiles[2:]).max() < 0.2 < np.abs(profiles[:2]).max()


def test_missing_labels_and_categories_without_cells_add_nothing():
    counts, codes, _ = simulated(np.linspace(-1, 1, 200))
    some = codes.copy()
    some[:50] = MISSING
    profiles = category_profiles(counts, some, [3])
    assert (profiles[2] == 0).all()
    np.testing.assert_allclose(profiles[:2], category_profiles(counts, codes, [2]), atol=0.5)
    assert category_profiles(counts, NO_LABELS, []).shape == (0, 200)


@pytest.mark.parametrize("dispersion", [0.5, 5.0])
def test_dispersions_are_those_within_types(dispersion):
    """Between types they are far smaller for the genes that differ."""
    log_ratios = np.zeros(200)
    log_ratios[:20] = 3
    counts, codes, types = simulated(log_ratios, cells=1000, dispersion=dispersion)
    within = within_dispersions(counts, codes)
    overall = within_dispersions(counts, np.zeros((2000, 0), np.int64))
    abundant = types.min(axis=0) > 3e-3
    # scaling to equal library sizes changes them a little
    assert np.median(within[abundant]) == pytest.approx(dispersion, rel=0.15)
    assert np.median(overall[:20]) < 0.8 * dispersion


def test_dispersions_do_not_depend_on_the_depth_of_cells():
    """Poisson counts at very different depths are not over-dispersed."""
    depth = np.geomspace(200, 20_000, 600)[:, None]
    counts = sp.csr_matrix(RNG.poisson(depth * np.full(50, 0.02)))
    assert within_dispersions(counts, NO_LABELS).min() > 20
