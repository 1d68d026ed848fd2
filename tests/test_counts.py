import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import chisquare, nbinom

from scld.counts import _negative_binomial, draw

MEANS = [1e-4, 1e-2, 0.3, 1.0, 5.0, 15.9, 16.1, 100.0, 1e4]  # on both sides of every change of method
DISPERSIONS = [1e-2, 0.3, 1.0, 10.0, 1e4]
CASES = [(mean, dispersion) for mean in MEANS for dispersion in DISPERSIONS]
ALARM = 1e-3 / len(CASES)  # smallest honest p-value; the seeds are fixed, so this is no lottery


def law(mean, dispersion):
    return nbinom(dispersion, dispersion / (dispersion + mean))


def drawn(mean, dispersion, cells=400, genes=500, seed=0):
    return draw(np.full((cells, genes), mean), np.full(genes, dispersion), seed)


def binned(values, law):
    """How many values fell in each bin and how many should: bins of at least 20, fine in the tail."""
    edges = np.unique(np.floor(np.geomspace(1, max(values.max(), 2), 60))) - 1
    below = np.append(law.cdf(edges), 1.0)
    kept, last = [], 0.0
    for i, at in enumerate(below):
        if len(values) * (at - last) >= 20 and (len(values) * (1 - at) >= 20 or i == len(edges)):
            kept.append(i)
            last = at
    if not kept or kept[-1] != len(edges):
        kept.append(len(edges))
    seen = np.diff([0, *np.append(np.searchsorted(np.sort(values), edges, side="right"), len(values))[kept]])
    return seen, len(values) * np.diff([0.0, *below[kept]])


@pytest.mark.parametrize(("mean", "dispersion"), CASES)
def test_draws_follow_scipys_law(mean, dispersion):
    values = drawn(mean, dispersion).toarray().ravel()
    seen, expected = binned(values, law(mean, dispersion))
    if len(seen) > 1:
        assert chisquare(seen, expected).pvalue > ALARM
    zero = law(mean, dispersion).pmf(0)
    assert abs((values == 0).mean() - zero) <= 5 * np.sqrt(zero * (1 - zero) / values.size) + 1e-9


@pytest.mark.parametrize("mean", [0.2, 0.5, 0.7, 1.0, 1.3])
def test_no_zero_is_taken_for_sure_that_is_not(mean):
    """Of nearly Poisson genes the bound that decides most zeros is closest to their probability."""
    values, zero = drawn(mean, 1e4, 4000, 1000), law(mean, 1e4).pmf(0)
    assert abs(1 - values.nnz / 4e6 - zero) < 4 * np.sqrt(zero * (1 - zero) / 4e6)


@pytest.mark.parametrize("dispersion", DISPERSIONS)
@pytest.mark.parametrize("mean", [mean for mean in MEANS if mean < 16])
def test_small_means_are_drawn_by_scipys_quantiles_far_into_the_tail(mean, dispersion):
    """One uniform number decides such a count; the last one here is passed once in 10^10 draws."""
    for tail in np.geomspace(0.9, 1e-10, 40):
        count = _negative_binomial(mean, dispersion, 1 - tail, np.zeros(1, np.uint64))
        above = law(mean, dispersion).sf([count - 1, count])
        assert above[1] * (1 - 1e-5) <= tail <= above[0] * (1 + 1e-5)


@pytest.mark.parametrize("seed", [1, 2**62])
@pytest.mark.parametrize(("cells", "genes"), [(200_000, 1), (1, 200_000)])
def test_one_gene_of_many_cells_and_one_cell_of_many_genes_follow_the_same_law(cells, genes, seed):
    for mean, dispersion in [(0.7, 0.5), (30.0, 3.0)]:
        seen, expected = binned(drawn(mean, dispersion, cells, genes, seed).toarray().ravel(), law(mean, dispersion))
        assert chisquare(seen, expected).pvalue > ALARM


@pytest.mark.parametrize(("mean", "dispersion"), [(mean, dispersion) for mean, dispersion in CASES if mean >= 0.3 and dispersion >= 0.3])
def test_mean_and_variance(mean, dispersion):
    values = drawn(mean, dispersion, seed=1).data
    size, expected = 200_000, law(mean, dispersion)
    variance = expected.var()
    fourth = variance**2 * (3 + expected.stats("k"))
    assert abs(values.sum() / size - mean) < 5 * np.sqrt(variance / size)
    assert abs((np.square(values - mean).sum() + (size - len(values)) * mean**2) / size - variance) < 5 * np.sqrt((fourth - variance**2) / size)


@pytest.mark.parametrize(("mean", "dispersion"), CASES)
def test_the_far_tail_is_there_and_no_farther(mean, dispersion):
    """The counts that one draw in ten thousand passes are passed as often as they should be."""
    values = drawn(mean, dispersion, seed=2).toarray().ravel()
    edge = law(mean, dispersion).isf(1e-4)
    share = law(mean, dispersion).sf(edge)
    assert abs((values > edge).mean() - share) <= 5 * np.sqrt(share / values.size) + 5 / values.size


def test_the_same_cell_comes_out_whichever_batch_draws_it():
    random = np.random.default_rng(0)
    mean, dispersion = random.gamma(0.3, 10.0, (50, 40)), random.gamma(1.0, 1.0, 40)
    whole = draw(mean, dispersion, seed=7)
    pieces = [draw(mean[start : start + 13], dispersion, seed=7, first=start) for start in range(0, 50, 13)]
    assert (whole != sp.vstack(pieces)).nnz == 0


def test_another_seed_and_another_cell_give_other_counts():
    one = drawn(2.0, 1.0, 2, 1000, seed=0).toarray()
    other = drawn(2.0, 1.0, 2, 1000, seed=1).toarray()
    for pair in [one, other, (one[0], other[0]), (one[0], other[1]), (one[1], other[0])]:
        assert abs(np.corrcoef(*pair)[0, 1]) < 5 / np.sqrt(1000)


def test_a_dispersion_for_each_gene_is_that_for_each_cell_and_gene():
    mean, dispersion = np.full((30, 20), 3.0), np.linspace(0.1, 5, 20)
    assert (draw(mean, dispersion, 0) != draw(mean, np.tile(dispersion, (30, 1)), 0)).nnz == 0


def test_each_cell_uses_its_own_dispersions():
    dispersion = np.repeat([[0.05], [1e4]], 5000, axis=1)
    spread = draw(np.full((2, 5000), 4.0), dispersion, 0).toarray().var(axis=1)
    np.testing.assert_allclose(spread, 4 + 16 / dispersion[:, 0], rtol=0.2)


def test_each_gene_uses_its_own_mean():
    mean = np.tile(np.geomspace(0.01, 1000, 6), (20_000, 1))
    np.testing.assert_allclose(draw(mean, np.full(6, 50.0), 0).toarray().mean(axis=0), mean[0], rtol=0.3)


@pytest.mark.parametrize(("cells", "genes", "mean"), [(1, 1, 50.0), (3, 7, 50.0), (200, 30, 50.0), (200, 30, 1.0), (5, 4, 1e-9)])
def test_the_matrix_is_sound_however_full(cells, genes, mean):
    matrix = drawn(mean, 1e4, cells, genes)
    matrix.check_format(full_check=True)
    assert matrix.has_canonical_format
    assert (matrix.shape, matrix.dtype) == ((cells, genes), np.float32)
    assert (matrix.data > 0).all()
    assert (matrix.data == np.rint(matrix.data)).all()
    if mean != 1.0:
        assert matrix.nnz == (cells * genes if mean > 1 else 0)
