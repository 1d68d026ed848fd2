import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.special import digamma, gammaln
from scipy.stats import nbinom

from scld import fused
from scld.likelihood import FEWEST_IN_SPIKE, dispersions, negative_log_likelihood

FORMULA, FUSED = torch.float64, torch.float32  # the precision decides which of the two computes


def stored(counts, dtype):
    matrix = sp.csr_matrix(np.asarray(counts, np.float64))
    return torch.from_numpy(matrix.data).to(dtype), torch.from_numpy(matrix.indices), torch.from_numpy(matrix.indptr)


def parameters(mean, dispersion, slope, dtype):
    """Scores and library sizes of these means, and the offset that gives this dispersion at the first cell's share."""
    log_library = np.log(mean.sum(axis=1))
    offset = np.log(dispersion) - slope * (np.log(mean[0]) - log_library[0])
    scores = np.log(mean) + np.arange(len(mean))[:, None]  # what all scores of a cell have in common makes no difference
    return tuple(torch.from_numpy(np.ascontiguousarray(part)).to(dtype) for part in (scores, log_library, offset, slope))


def of_each_cell(scores, log_library, offset, slope, counts, dtype, spike_rate=0.0):
    """Log-likelihoods ``[cells]``."""
    cells = [(scores[[i]], log_library[[i]], offset, slope, stored(counts[[i]], dtype), spike_rate) for i in range(len(scores))]
    return -torch.stack([negative_log_likelihood(*cell) for cell in cells])


def ours(counts, mean, dispersion, dtype=FORMULA, slope=None, **spikes):
    mean, genes = np.asarray(mean, float), np.shape(mean)[1]
    slope = np.zeros(genes) if slope is None else slope
    return of_each_cell(*parameters(mean, np.broadcast_to(dispersion, genes), slope, dtype), np.asarray(counts), dtype, **spikes)


def scipys(counts, mean, dispersion):
    return nbinom.logpmf(counts, dispersion, dispersion / (dispersion + mean))


def some_cells(cells=20, genes=300):
    random = np.random.default_rng(0)
    mean, dispersion = random.lognormal(-1, 2, (cells, genes)), random.lognormal(1, 1.5, genes).clip(0.02, 9e3)
    counts = random.poisson(mean * random.gamma(dispersion, 1 / dispersion, mean.shape))
    counts[3] = 0
    return counts, mean, dispersion


@pytest.mark.parametrize(("dtype", "tolerance"), [(FORMULA, 1e-8), (FUSED, 2e-5)])
@pytest.mark.parametrize("dispersion", [0.0101, 0.1, 1.0, 10.0, 9.8e3])
@pytest.mark.parametrize("mean", [1e-4, 0.1, 1.0, 30.0, 1e4])
def test_one_count_has_scipys_probability(mean, dispersion, dtype, tolerance):
    counts = np.array([[0], [1], [2], [3], [16], [17], [64], [65], [200], [256], [30_000]])
    expected = scipys(counts, mean, dispersion)[:, 0]
    result = ours(counts, np.full(counts.shape, mean), dispersion, dtype).numpy()
    rounding = tolerance * (1 + counts[:, 0] / 20)  # a count takes its log-mean as often as it is high
    assert (abs(result - expected) <= rounding + tolerance * abs(expected)).all()


@pytest.mark.parametrize(("dtype", "rtol"), [(FORMULA, 1e-10), (FUSED, 1e-5)])
def test_a_cell_has_the_sum_over_its_genes(dtype, rtol):
    counts, mean, dispersion = some_cells()
    result = ours(counts, mean, dispersion, dtype)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, scipys(counts, mean, dispersion).sum(1), rtol=rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(FORMULA, 1e-10), (FUSED, 1e-5)])
def test_dispersions_follow_a_power_of_the_share(dtype, rtol):
    counts, mean, dispersion = some_cells()
    slope = np.random.default_rng(1).normal(0, 0.3, len(dispersion))
    shares = mean / mean.sum(axis=1, keepdims=True)
    followed = (dispersion * (shares / shares[0]) ** slope).clip(*np.exp(fused.LIMITS))
    np.testing.assert_allclose(ours(counts, mean, dispersion, dtype, slope), scipys(counts, mean, followed).sum(1), rtol=rtol)


def test_dispersions_keep_within_limits_that_gradients_pass():
    offset = torch.tensor([-50.0, 0.5, 50.0], requires_grad=True)
    result = dispersions(torch.zeros(1, 3), offset, torch.zeros(3))
    torch.testing.assert_close(result, torch.tensor([[fused.LIMITS[0], 0.5, fused.LIMITS[1]]]))
    assert torch.autograd.grad(result.sum(), offset)[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", [FORMULA, FUSED])
def test_cells_without_any_count(dtype):
    mean, dispersion = np.full((2, 3), 2.0), np.array([0.5, 1.0, 4.0])
    np.testing.assert_allclose(ours(np.zeros((2, 3), int), mean, dispersion, dtype), scipys(np.zeros((2, 3)), mean, dispersion).sum(1), rtol=1e-6)


def test_single_precision_keeps_many_equal_terms():
    """Large dispersions make both Gammas large and their difference small."""
    counts, mean, dispersion = np.full((1, 2000), 2), np.full((1, 2000), 2.0), np.full(2000, 9e3)
    np.testing.assert_allclose(ours(counts, mean, dispersion, FUSED), scipys(counts, mean, dispersion).sum(1), rtol=3e-5)


@pytest.mark.parametrize("spike_rate", [0.0, 1e-3])
@pytest.mark.parametrize("counts", [np.zeros((2, 3), int), np.array([[0, 1, 50, 7], [5, 4, 6, 200], [0, 0, 0, 0], [9, 30, 2, 5]])])
def test_gradients_are_those_of_the_formula(counts, spike_rate):
    """Where spikes explain all of a count, a part of it, and next to nothing; and over no counts at all."""
    random, shape = np.random.default_rng(1), counts.shape
    scores, offset, slope = (torch.from_numpy(random.normal(0, 1, size)).requires_grad_() for size in (shape, shape[1], shape[1]))
    library, at = torch.ones(len(counts), dtype=FORMULA), stored(counts, FORMULA)
    assert torch.autograd.gradcheck(lambda s, o, p: negative_log_likelihood(s, library, o, 0.3 * p, at, spike_rate), (scores, offset, slope))


def value_and_gradients(scores, library, offset, slope, at, spike_rate):
    given = [part.detach().requires_grad_() for part in (scores, offset, slope)]
    value = negative_log_likelihood(given[0], library, *given[1:], at, spike_rate)
    return [value.detach(), *torch.autograd.grad(value, given)]


@pytest.mark.parametrize("spike_rate", [0.0, 1e-3])
@pytest.mark.parametrize("shape", [(37, 301), (70, 4100)], ids=str)
def test_one_pass_agrees_with_the_formula(shape, spike_rate):
    """Within a block of cells and genes, and over several."""
    counts, mean, dispersion = some_cells(*shape)
    counts[0, ::7] += 40
    slope, results = np.random.default_rng(1).normal(0, 0.3, shape[1]), []
    for dtype in (FORMULA, FUSED):
        results.append(value_and_gradients(*parameters(mean, dispersion, slope, dtype), stored(counts, dtype), spike_rate))
    for exact, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast.double(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().mean()) + 1e-5)


def test_gradients_of_one_pass_are_scaled_with_what_is_made_of_it():
    counts, mean, dispersion = some_cells(5, 30)
    scores, *others = parameters(mean, dispersion, np.zeros(30), FUSED)
    scores.requires_grad_()
    once, thrice = (torch.autograd.grad(factor * negative_log_likelihood(scores, *others, stored(counts, FUSED)), scores)[0] for factor in (1, 3))
    torch.testing.assert_close(3 * once, thrice)


def test_one_pass_gives_the_same_for_any_number_of_threads(threads):
    counts, mean, dispersion = some_cells(37, 301)
    results = []
    for number in (1, 4):
        threads(number)
        results.append(value_and_gradients(*parameters(mean, dispersion, np.full(301, 0.1), FUSED), stored(counts, FUSED), 1e-3))
    for one, four in zip(*results, strict=True):
        assert torch.equal(one, four)


def test_one_pass_takes_its_inputs_however_they_are_stored():
    """By columns, with gaps, with wide indices, and where single precision is not the usual one."""
    counts, mean, dispersion = some_cells(37, 301)
    scores, library, *genes = parameters(mean, dispersion, np.full(301, 0.1), FUSED)
    x, at, starts = stored(counts, FUSED)
    gaps = [part.repeat_interleave(2)[::2] for part in (library, *genes)]
    usual, other = (scores, library, *genes, (x, at, starts)), (scores.T.contiguous().T, *gaps, (x, at.long(), starts.long()))
    results = []
    for dtype, (*given, where) in ((torch.float32, usual), (torch.float64, other)):
        torch.set_default_dtype(dtype)
        try:
            results.append(value_and_gradients(*given, where, 1e-3))
        finally:
            torch.set_default_dtype(torch.float32)
    assert not other[0].is_contiguous()
    for one, two in zip(*results, strict=True):
        assert one.dtype == two.dtype == FUSED
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spike_rate", [0.0, 1e-3])
@pytest.mark.parametrize("dtype", [FORMULA, FUSED])
def test_scores_that_are_no_numbers_have_no_likelihood(dtype, spike_rate):
    """Training stops when its loss is no number, so that must not get lost."""
    scores, *others = parameters(np.full((3, 4), 2.0), np.ones(4), np.zeros(4), dtype)
    scores[1] = torch.nan
    assert of_each_cell(scores, *others, np.eye(3, 4) * 9, dtype, spike_rate).isnan().tolist() == [False, True, False]
    assert negative_log_likelihood(scores, *others, stored(np.eye(3, 4) * 9, dtype), spike_rate).isnan()


@pytest.mark.parametrize("dtype", [FORMULA, FUSED])
@pytest.mark.parametrize("which", [1, 2])
def test_nor_have_dispersions_that_are_no_numbers(dtype, which):
    scores, log_library, *genes = parameters(np.full((3, 4), 2.0), np.ones(4), np.zeros(4), dtype)
    genes[which - 1][2] = torch.nan
    assert negative_log_likelihood(scores, log_library, *genes, stored(np.eye(3, 4) * 9, dtype)).isnan()


def test_precision_is_that_of_the_scores():
    counts, mean, dispersion = some_cells(5, 30)
    single, double = (parameters(mean, dispersion, np.zeros(30), dtype) for dtype in (FUSED, FORMULA))
    at = stored(counts, FUSED)
    assert negative_log_likelihood(*single, at) == negative_log_likelihood(single[0], *double[1:], at)


@pytest.mark.parametrize("r", [0.01, 0.7, 5.0, 1e4])
def test_ratios_of_gammas_are_scipys(r):
    short, long = np.arange(2, 17), np.array([17.0, 64, 65, 1000, 1e6])
    found = np.array([fused._product(r, n) for n in short])
    np.testing.assert_allclose(np.log(found[:, 0]), gammaln(short + r) - gammaln(1 + r), rtol=1e-9)
    np.testing.assert_allclose(found[:, 1], digamma(short + r) - digamma(1 + r), rtol=1e-9)
    found = np.array([fused._long_product(r, n) for n in long])
    np.testing.assert_allclose(found[:, 0], gammaln(long + r) - gammaln(1 + r), rtol=1e-9)
    np.testing.assert_allclose(found[:, 1], digamma(long + r) - digamma(1 + r), rtol=1e-9)


# Spikes

COUNTS = np.arange(300)[:, None]


def spike(counts, rate):
    """The tail of a law of counts from m on whose survival function is m / x."""
    tail = FEWEST_IN_SPIKE / np.maximum(counts, 1) - FEWEST_IN_SPIKE / (counts + 1)
    return np.where(counts >= FEWEST_IN_SPIKE, rate * tail, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(FORMULA, 1e-8), (FUSED, 2e-5)])
@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.2])
@pytest.mark.parametrize(("mean", "dispersion"), [(0.01, 50.0), (0.5, 0.2), (4.0, 1e3), (100.0, 2.0)])
def test_with_spikes_a_count_has_the_sum_of_both_probabilities(mean, dispersion, rate, dtype, tolerance):
    expected = np.log(nbinom.pmf(COUNTS, dispersion, dispersion / (dispersion + mean)) + spike(COUNTS, rate))[:, 0]
    result = ours(COUNTS, np.full((300, 1), mean), dispersion, dtype, spike_rate=rate)
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def test_the_spikes_of_a_count_are_as_many_as_the_rate_says():
    assert abs(spike(np.arange(1_000_000), 0.01).sum() / 0.01 - 1) < 1e-5


@pytest.mark.parametrize("dtype", [FORMULA, FUSED])
def test_few_counts_are_no_spikes(dtype):
    below, mean = COUNTS[:FEWEST_IN_SPIKE], np.full((FEWEST_IN_SPIKE, 1), 0.3)
    assert torch.equal(ours(below, mean, 0.7, dtype, spike_rate=0.1), ours(below, mean, 0.7, dtype))


def test_a_lone_spike_leaves_a_nearly_poisson_gene_so():
    """A single 50 among a thousand cells: without spikes it drags the dispersion down, with them hardly at all."""
    counts = np.random.default_rng(0).poisson(0.3, (1000, 1))
    spiked = counts.copy()
    spiked[0] = 50

    def pull(these, rate):
        return float(value_and_gradients(*parameters(np.full((1000, 1), 0.3), np.array([20.0]), np.zeros(1), FUSED), stored(these, FUSED), rate)[2])

    assert abs(pull(spiked, 1e-5) - pull(counts, 1e-5)) < 0.01 * abs(pull(spiked, 0.0) - pull(counts, 0.0))
