import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import chi2_contingency, chisquare, nbinom

from scld.kernels.sampling import (
    _negative_binomial,
    csr_of_device,
    sample_counts,
    sample_counts_on_device,
    sample_counts_plain,
)

# on both sides of every change of method
MEANS = [1e-4, 1e-2, 0.3, 1.0, 5.0, 15.9, 16.1, 100.0, 1e4]
DISPERSIONS = [1e-2, 0.3, 1.0, 10.0, 1e4]
CASES = [(mean, dispersion) for mean in MEANS for dispersion in DISPERSIONS]
WELL_SPREAD = [case for case in CASES if min(case) >= 0.3]
LEAST_P = 1e-3 / len(CASES)  # the seeds are fixed, so a passing test passes again


def distribution(mean, dispersion):
    return nbinom(dispersion, dispersion / (dispersion + mean))


def compiled(mean, dispersion, cells=400, genes=500, seed=0):
    return sample_counts(np.full((cells, genes), mean), np.full(genes, dispersion), seed)


def plain(mean, dispersion, cells=400, genes=500, seed=0):
    arrays = np.full((cells, genes), mean), np.full(genes, dispersion)
    return sp.csr_matrix(sample_counts_plain(*arrays, np.random.default_rng(seed)))


def on_device(mean, dispersion, cells=400, genes=500, seed=0):
    """As on a GPU."""
    parameters = (torch.full((cells, genes), value).log() for value in (mean, dispersion))
    return csr_of_device(sample_counts_on_device(*parameters, torch.Generator().manual_seed(seed)))


def bins(values, expected):
    """Upper edges of bins that should hold at least 20 of these values, fine in the tail."""
    edges = np.unique(np.floor(np.geomspace(1, max(values.max(), 2), 60))) - 1
    below, number = np.append(expected.cdf(edges), 1.0), len(values)
    kept, last = [], 0.0
    for i, at in enumerate(below):
        room_above = number * (1 - at) >= 20 or i == len(edges)
        if number * (at - last) >= 20 and room_above:
            kept.append(i)
            last = at
    if not kept or kept[-1] != len(edges):
        kept.append(len(edges))
    return edges, kept


def numbers_by_bin(values, edges, kept):
    below = np.searchsorted(np.sort(values), edges, side="right")
    return np.diff([0, *np.append(below, len(values))[kept]])


def binned(values, expected):
    """The number of values in each bin, and the number that should be there."""
    edges, kept = bins(values, expected)
    probabilities = np.diff([0.0, *np.append(expected.cdf(edges), 1.0)[kept]])
    return numbers_by_bin(values, edges, kept), len(values) * probabilities


@pytest.mark.parametrize("version", [compiled, plain, on_device])
@pytest.mark.parametrize(("mean", "dispersion"), CASES)
def test_counts_follow_scipys_distribution(mean, dispersion, version):
    values = version(mean, dispersion).toarray().ravel()
    seen, expected = binned(values, distribution(mean, dispersion))
    if len(seen) > 1:
        assert chisquare(seen, expected).pvalue > LEAST_P
    zero = distribution(mean, dispersion).pmf(0)
    error = np.sqrt(zero * (1 - zero) / values.size)
    assert abs((values == 0).mean() - zero) <= 5 * error + 1e-9


@pytest.mark.parametrize(("mean", "dispersion"), CASES)
def test_the_compiled_version_has_the_distribution_of_the_plain_one(mean, dispersion):
    both = [version(mean, dispersion, seed=5).toarray().ravel() for version in (compiled, plain)]
    edges, kept = bins(np.concatenate(both), distribution(mean, dispersion))
    table = np.array([numbers_by_bin(values, edges, kept) for values in both])
    if table.shape[1] > 1:
        assert chi2_contingency(table).pvalue > LEAST_P


@pytest.mark.parametrize("mean", [0.2, 0.5, 0.7, 1.0, 1.3])
def test_no_count_is_taken_for_a_certain_zero(mean):
    """In nearly Poisson genes the bound that decides most zeros is closest to P(0)."""
    values, zero = compiled(mean, 1e4, 4000, 1000), distribution(mean, 1e4).pmf(0)
    assert abs(1 - values.nnz / 4e6 - zero) < 4 * np.sqrt(zero * (1 - zero) / 4e6)


@pytest.mark.parametrize("dispersion", DISPERSIONS)
@pytest.mark.parametrize("mean", [mean for mean in MEANS if mean < 16])
def test_counts_of_small_means_are_scipys_quantiles_far_into_the_tail(mean, dispersion):
    """One uniform number decides such a count; the last one here comes once in 10^10 times."""
    for tail in np.geomspace(0.9, 1e-10, 40):
        count = _negative_binomial(mean, dispersion, 1 - tail, np.zeros(1, np.uint64))
        above = distribution(mean, dispersion).sf([count - 1, count])
        assert above[1] * (1 - 1e-5) <= tail <= above[0] * (1 + 1e-5)


@pytest.mark.parametrize("seed", [1, 2**62])
@pytest.mark.parametrize(("cells", "genes"), [(200_000, 1), (1, 200_000)])
def test_one_gene_of_many_cells_and_one_cell_of_many_genes_are_alike(cells, genes, seed):
    for mean, dispersion in [(0.7, 0.5), (30.0, 3.0)]:
        values = compiled(mean, dispersion, cells, genes, seed).toarray().ravel()
        seen, expected = binned(values, distribution(mean, dispersion))
        assert chisquare(seen, expected).pvalue > LEAST_P


@pytest.mark.parametrize(("mean", "dispersion"), WELL_SPREAD)
def test_mean_and_variance(mean, dispersion):
    values = compiled(mean, dispersion, seed=1).data
    size, expected = 200_000, distribution(mean, dispersion)
    variance = expected.var()
    fourth = variance**2 * (3 + expected.stats("k"))
    assert abs(values.sum() / size - mean) < 5 * np.sqrt(variance / size)
    squares = np.square(values - mean).sum() + (size - len(values)) * mean**2
    assert abs(squares / size - variance) < 5 * np.sqrt((fourth - variance**2) / size)


@pytest.mark.parametrize(("mean", "dispersion"), CASES)
def test_the_far_tail_is_as_heavy_as_it_should_be(mean, dispersion):
    """The count that is exceeded once in ten thousand times is exceeded that often."""
    values = compiled(mean, dispersion, seed=2).toarray().ravel()
    edge = distribution(mean, dispersion).isf(1e-4)
    share = distribution(mean, dispersion).sf(edge)
    error = 5 * np.sqrt(share / values.size) + 5 / values.size
    assert abs((values > edge).mean() - share) <= error


def test_a_cell_has_the_same_counts_in_every_batch():
    random = np.random.default_rng(0)
    mean, dispersion = random.gamma(0.3, 10.0, (50, 40)), random.gamma(1.0, 1.0, 40)
    at_once = sample_counts(mean, dispersion, seed=7)
    pieces = [
        sample_counts(mean[first : first + 13], dispersion, seed=7, first=first)
        for first in range(0, 50, 13)
    ]
    assert (at_once != sp.vstack(pieces)).nnz == 0


def test_another_seed_and_another_cell_have_other_counts():
    one = compiled(2.0, 1.0, 2, 1000, seed=0).toarray()
    other = compiled(2.0, 1.0, 2, 1000, seed=1).toarray()
    for pair in [one, other, (one[0], other[0]), (one[0], other[1]), (one[1], other[0])]:
        assert abs(np.corrcoef(*pair)[0, 1]) < 5 / np.sqrt(1000)


def test_dispersions_by_gene_are_those_by_cell_and_gene():
    mean, dispersion = np.full((30, 20), 3.0), np.linspace(0.1, 5, 20)
    by_cell = np.tile(dispersion, (30, 1))
    assert (sample_counts(mean, dispersion, 0) != sample_counts(mean, by_cell, 0)).nnz == 0


def test_each_cell_uses_its_own_dispersions():
    dispersion = np.repeat([[0.05], [1e4]], 5000, axis=1)
    variance = sample_counts(np.full((2, 5000), 4.0), dispersion, 0).toarray().var(axis=1)
    np.testing.assert_allclose(variance, 4 + 16 / dispersion[:, 0], rtol=0.2)


def test_each_gene_uses_its_own_mean():
    mean = np.tile(np.geomspace(0.01, 1000, 6), (20_000, 1))
    seen = sample_counts(mean, np.full(6, 50.0), 0).toarray().mean(axis=0)
    np.testing.assert_allclose(seen, mean[0], rtol=0.3)


SHAPES = [(1, 1, 50.0), (3, 7, 50.0), (200, 30, 50.0), (200, 30, 1.0), (5, 4, 1e-9)]


@pytest.mark.parametrize(("cells", "genes", "mean"), SHAPES)
def test_the_matrix_is_canonical_csr_with_any_share_of_zeros(cells, genes, mean):
    matrix = compiled(mean, 1e4, cells, genes)
    matrix.check_format(full_check=True)
    assert matrix.has_canonical_format
    assert (matrix.shape, matrix.dtype) == ((cells, genes), np.float32)
    assert (matrix.data > 0).all()
    assert (matrix.data == np.rint(matrix.data)).all()
    if mean != 1.0:
        assert matrix.nnz == (cells * genes if mean > 1 else 0)
