import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.special import digamma, gammaln
from scipy.stats import nbinom

from scld import fused
from scld.likelihood import FEWEST_IN_SPIKE, dispersions, log_likelihood

FORMULA, FUSED = torch.float64, torch.float32  # the precision decides which of the two computes


def stored(counts, dtype):
    matrix = sp.csr_matrix(np.asarray(counts, np.float64))
    return torch.from_numpy(matrix.data).to(dtype), torch.from_numpy(matrix.indices), torch.from_numpy(matrix.indptr)


def parameters(mean, dispersion, slope, dtype):
    """Shares of library sizes of 1,000 (the shares need not add up), and the offset that gives this dispersion at the first cell's share."""
    log_share = np.log(mean) - np.log(1000.0)
    offset = np.log(dispersion) - slope * log_share[0]
    return tuple(torch.from_numpy(np.ascontiguousarray(part)).to(dtype) for part in (log_share, np.full(len(mean), np.log(1000.0)), offset, slope))


def ours(counts, mean, dispersion, dtype=FORMULA, slope=None, **spikes):
    mean, genes = np.asarray(mean, float), np.shape(mean)[1]
    slope = np.zeros(genes) if slope is None else slope
    return log_likelihood(*parameters(mean, np.broadcast_to(dispersion, genes), slope, dtype), stored(counts, dtype), **spikes)


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
    followed = (dispersion * (mean / mean[0]) ** slope).clip(*np.exp(fused.LIMITS))
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
    log_share, offset, slope = (torch.from_numpy(random.normal(0, 1, size)).requires_grad_() for size in (shape, shape[1], shape[1]))
    library, at = torch.zeros(len(counts), dtype=FORMULA), stored(counts, FORMULA)
    assert torch.autograd.gradcheck(lambda s, o, p: log_likelihood(s, library, o, 0.3 * p, at, spike_rate), (log_share, offset, slope))


@pytest.mark.parametrize("spike_rate", [0.0, 1e-3])
def test_the_gradients_of_one_pass_are_those_of_the_formula(spike_rate):
    counts, mean, dispersion = some_cells(37, 301)
    counts[5, ::7] += 40
    slope, weights, results = np.random.default_rng(1).normal(0, 0.3, 301), torch.from_numpy(np.random.default_rng(2).random(37)), []
    for dtype in (FORMULA, FUSED):
        log_share, library, *others = (part.requires_grad_() for part in parameters(mean, dispersion, slope, dtype))
        total = (log_likelihood(log_share, library, *others, stored(counts, dtype), spike_rate) * weights.to(dtype)).sum()
        results.append(torch.autograd.grad(total, (log_share, *others)))
    for exact, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast.double(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().mean()) + 2e-4)


def test_one_pass_gives_the_same_for_any_number_of_threads(threads):
    counts, mean, dispersion = some_cells(37, 301)
    results = []
    for number in (1, 4):
        threads(number)
        given = [part.requires_grad_() for part in parameters(mean, dispersion, np.full(301, 0.1), FUSED)]
        value = log_likelihood(*given, stored(counts, FUSED), 1e-3)
        results.append([value, *torch.autograd.grad(value.sum(), (given[0], *given[2:]))])
    for one, four in zip(*results, strict=True):
        assert torch.equal(one, four)


def test_one_pass_takes_its_inputs_however_they_are_stored():
    """By columns, with gaps, with wide indices, and where single precision is not the usual one."""
    counts, mean, dispersion = some_cells(37, 301)
    share, library, *genes = parameters(mean, dispersion, np.full(301, 0.1), FUSED)
    x, at, starts = stored(counts, FUSED)
    gaps = [part.repeat_interleave(2)[::2] for part in (library, *genes)]
    usual, other = (share, library, *genes, (x, at, starts)), (share.T.contiguous().T, *gaps, (x, at.long(), starts.long()))
    results = []
    for dtype, (*given, where) in ((torch.float32, usual), (torch.float64, other)):
        torch.set_default_dtype(dtype)
        given = [part.detach().requires_grad_() for part in given]
        try:
            value = log_likelihood(*given, where, 1e-3)
            results.append([value, *torch.autograd.grad(value.sum(), (given[0], *given[2:]))])
        finally:
            torch.set_default_dtype(torch.float32)
    assert not other[0].is_contiguous()
    for one, two in zip(*results, strict=True):
        assert one.dtype == two.dtype == FUSED
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spike_rate", [0.0, 1e-3])
@pytest.mark.parametrize("dtype", [FORMULA, FUSED])
def test_shares_that_are_no_numbers_have_no_likelihood(dtype, spike_rate):
    """Training stops when its loss is no number, so that must not get lost."""
    log_share, *others = parameters(np.full((3, 4), 2.0), np.ones(4), np.zeros(4), dtype)
    log_share[1] = torch.nan
    value = log_likelihood(log_share, *others, stored(np.eye(3, 4) * 9, dtype), spike_rate)
    assert value.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("r", [0.01, 0.7, 5.0, 1e4])
def test_ratios_of_gammas_are_scipys(r):
    x = np.array([2.0, 3, 16, 17, 64, 65, 1000])
    np.testing.assert_allclose([fused._log_rising(r, n) for n in x], gammaln(x + r) - gammaln(1 + r), rtol=1e-9)
    np.testing.assert_allclose([fused._rising_slope(r, n) for n in x], digamma(x + r) - digamma(1 + r), rtol=1e-9)


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
        log_share, library, offset, slope = parameters(np.full((1000, 1), 0.3), np.array([20.0]), np.zeros(1), FUSED)
        offset.requires_grad_()
        log_likelihood(log_share, library, offset, slope, stored(these, FUSED), rate).sum().backward()
        return float(offset.grad)

    assert abs(pull(spiked, 1e-5) - pull(counts, 1e-5)) < 0.01 * abs(pull(spiked, 0.0) - pull(counts, 0.0))
