import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from scld.likelihood import FEWEST_IN_SPIKE, log_likelihood


def ours(counts, mean, dispersion, dtype=torch.float64, **spikes):
    rows, genes = np.nonzero(counts)
    at = (torch.from_numpy(rows), torch.from_numpy(genes), torch.from_numpy(counts[rows, genes]).to(dtype))
    log_dispersion = torch.from_numpy(np.log(np.broadcast_to(dispersion, mean.shape))).to(dtype)
    return log_likelihood(torch.from_numpy(np.log(mean)).to(dtype), log_dispersion, *at, **spikes)


def scipys(counts, mean, dispersion):
    return nbinom.logpmf(counts, dispersion, dispersion / (dispersion + mean))


@pytest.mark.parametrize("dispersion", [1e-3, 0.1, 1.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("mean", [1e-4, 0.1, 1.0, 30.0, 1e4])
def test_one_count_has_scipys_probability(mean, dispersion):
    counts = np.array([[0], [1], [2], [3], [17], [200], [30_000]])
    expected = scipys(counts, mean, dispersion)[:, 0]
    np.testing.assert_allclose(ours(counts, np.full((7, 1), mean), np.array([dispersion])), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_cell_has_the_sum_over_its_genes(dtype, rtol):
    random = np.random.default_rng(0)
    mean, dispersion = random.lognormal(-1, 2, (20, 300)), random.lognormal(1, 2, (20, 300))
    counts = random.poisson(mean * random.gamma(dispersion, 1 / dispersion, mean.shape))
    counts[3] = 0
    expected = scipys(counts, mean, dispersion).sum(1)
    result = ours(counts, mean, dispersion, dtype)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=rtol)


def test_cells_without_any_count():
    mean, dispersion = np.full((2, 3), 2.0), np.array([0.5, 1.0, 4.0])
    np.testing.assert_allclose(ours(np.zeros((2, 3), int), mean, dispersion), scipys(np.zeros((2, 3)), mean, dispersion).sum(1))


def test_single_precision_keeps_many_equal_terms():
    """Large dispersions make both Gammas large and their difference small."""
    counts = np.full((1, 2000), 2)
    mean, dispersion = np.full((1, 2000), 2.0), np.full(2000, 1e5)
    np.testing.assert_allclose(ours(counts, mean, dispersion, torch.float32), scipys(counts, mean, dispersion).sum(1), rtol=1e-4)


def test_gradients_are_those_of_the_formula():
    random = np.random.default_rng(1)
    counts = random.poisson(2.0, (4, 5))
    counts[0] = 0
    counts[1, :3] = [1, 2, 50]
    rows, genes = np.nonzero(counts)
    at = (torch.from_numpy(rows), torch.from_numpy(genes), torch.from_numpy(counts[rows, genes]).double())
    log_mean = torch.from_numpy(random.normal(0, 1, (4, 5))).requires_grad_()
    log_dispersion = torch.from_numpy(random.normal(0, 2, (4, 5))).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, r: log_likelihood(m, r, *at), (log_mean, log_dispersion))


def test_the_gradient_over_no_counts_at_all():
    none = torch.zeros(0, dtype=torch.long)
    log_mean, log_dispersion = (torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 3), (2, 3)])
    assert torch.autograd.gradcheck(lambda m, r: log_likelihood(m, r, none, none, none.double()), (log_mean, log_dispersion))


# Spikes

COUNTS = np.arange(300)[:, None]


def spike(counts, rate):
    """The tail of a law of counts from m on whose survival function is m / x."""
    tail = FEWEST_IN_SPIKE / np.maximum(counts, 1) - FEWEST_IN_SPIKE / (counts + 1)
    return np.where(counts >= FEWEST_IN_SPIKE, rate * tail, 0)


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.2])
@pytest.mark.parametrize(("mean", "dispersion"), [(0.01, 50.0), (0.5, 0.2), (4.0, 1e3), (100.0, 2.0)])
def test_with_spikes_a_count_has_the_sum_of_both_probabilities(mean, dispersion, rate):
    expected = np.log(nbinom.pmf(COUNTS, dispersion, dispersion / (dispersion + mean)) + spike(COUNTS, rate))[:, 0]
    np.testing.assert_allclose(ours(COUNTS, np.full((300, 1), mean), np.array([dispersion]), spike_rate=rate), expected, rtol=1e-8, atol=1e-9)


def test_the_spikes_of_a_count_are_as_many_as_the_rate_says():
    assert abs(spike(np.arange(1_000_000), 0.01).sum() / 0.01 - 1) < 1e-5


def test_without_a_rate_there_are_no_spikes():
    mean, dispersion = np.full((300, 1), 0.3), np.array([0.7])
    assert torch.equal(ours(COUNTS, mean, dispersion, spike_rate=0.0), ours(COUNTS, mean, dispersion))
    below = COUNTS[:FEWEST_IN_SPIKE]
    assert torch.equal(ours(below, mean[:FEWEST_IN_SPIKE], dispersion, spike_rate=0.1), ours(below, mean[:FEWEST_IN_SPIKE], dispersion))


def parts_of(counts):
    rows, genes = np.nonzero(counts)
    return torch.from_numpy(rows), torch.from_numpy(genes), torch.from_numpy(counts[rows, genes]).double()


def test_gradients_with_spikes_are_those_of_the_formula():
    """Where spikes explain all of a count, a part of it, and next to nothing."""
    counts = np.array([[0, 1, 50, 7], [5, 4, 6, 200], [0, 0, 0, 0], [9, 30, 2, 5]])
    log_mean = torch.from_numpy(np.random.default_rng(1).normal(0.5, 1, (4, 4))).requires_grad_()
    log_dispersion = torch.from_numpy(np.random.default_rng(2).normal(1, 2, (4, 4))).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, r: log_likelihood(m, r, *parts_of(counts), 1e-3), (log_mean, log_dispersion))


def test_a_lone_spike_leaves_a_nearly_poisson_gene_so():
    """A single 50 among a thousand cells: without spikes it drags the dispersion down, with them hardly at all."""
    counts = np.random.default_rng(0).poisson(0.3, (1000, 1))
    spiked = counts.copy()
    spiked[0] = 50

    def pull(these, rate):
        log_dispersion = torch.full((1, 1), np.log(20.0), dtype=torch.float64, requires_grad=True)
        log_mean = torch.full((1000, 1), np.log(0.3), dtype=torch.float64)
        log_likelihood(log_mean, log_dispersion.expand(1000, 1), *parts_of(these), rate).sum().backward()
        return float(log_dispersion.grad)

    assert abs(pull(spiked, 1e-5) - pull(counts, 1e-5)) < 0.01 * abs(pull(spiked, 0.0) - pull(counts, 0.0))
