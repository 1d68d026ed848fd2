import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import nbinom

from scld.kernels.likelihood import LEAST_OUTLIER, LIMITS
from scld.kernels.sparse import SparseCounts
from scld.model.likelihood import negative_log_likelihood

PLAIN, COMPILED = torch.float64, torch.float32  # the precision decides which version computes
BOTH = pytest.mark.parametrize("dtype", [PLAIN, COMPILED])


def sparse(counts, dtype):
    matrix = sp.csr_matrix(np.asarray(counts, np.float64))
    genes, starts = torch.from_numpy(matrix.indices), torch.from_numpy(matrix.indptr)
    return SparseCounts(torch.from_numpy(matrix.data).to(dtype), genes, starts)


def inputs(mean, dispersion, slope, dtype):
    """Logits, library sizes, and the offset that gives these dispersions in the first cell."""
    log_library = np.log(mean.sum(axis=1))
    offset = np.log(dispersion) - slope * (np.log(mean[0]) - log_library[0])
    logits = np.log(mean) + np.arange(len(mean))[:, None]  # the softmax removes what a cell shares
    arrays = (np.ascontiguousarray(array) for array in (logits, log_library, offset, slope))
    return tuple(torch.from_numpy(array).to(dtype) for array in arrays)


def log_likelihoods(logits, log_library, offset, slope, counts, dtype, outlier_rate=0.0):
    """Of each cell, ``[cells]``."""
    cells = [
        (logits[[i]], log_library[[i]], offset, slope, sparse(counts[[i]], dtype), outlier_rate)
        for i in range(len(logits))
    ]
    return -torch.stack([negative_log_likelihood(*cell) for cell in cells])


def ours(counts, mean, dispersion, dtype=PLAIN, slope=None, outlier_rate=0.0):
    mean, genes = np.asarray(mean, float), np.shape(mean)[1]
    slope = np.zeros(genes) if slope is None else slope
    given = inputs(mean, np.broadcast_to(dispersion, genes), slope, dtype)
    return log_likelihoods(*given, np.asarray(counts), dtype, outlier_rate)


def scipys(counts, mean, dispersion):
    return nbinom.logpmf(counts, dispersion, dispersion / (dispersion + mean))


def example(cells=20, genes=300):
    random = np.random.default_rng(0)
    mean = random.lognormal(-1, 2, (cells, genes))
    dispersion = random.lognormal(1, 1.5, genes).clip(0.02, 9e3)
    counts = random.poisson(mean * random.gamma(dispersion, 1 / dispersion, mean.shape))
    counts[3] = 0
    return counts, mean, dispersion


def gradients(logits, library, offset, slope, counts, outlier_rate):
    given = [part.detach().requires_grad_() for part in (logits, offset, slope)]
    value = negative_log_likelihood(given[0], library, *given[1:], counts, outlier_rate)
    return torch.autograd.grad(value, given)


@pytest.mark.parametrize(("dtype", "tolerance"), [(PLAIN, 1e-8), (COMPILED, 2e-5)])
@pytest.mark.parametrize("dispersion", [0.0101, 0.1, 1.0, 10.0, 9.8e3])
@pytest.mark.parametrize("mean", [1e-4, 0.1, 1.0, 30.0, 1e4])
def test_one_count_has_scipys_probability(mean, dispersion, dtype, tolerance):
    counts = np.array([[0], [1], [2], [3], [16], [17], [64], [65], [200], [256], [30_000]])
    expected = scipys(counts, mean, dispersion)[:, 0]
    result = ours(counts, np.full(counts.shape, mean), dispersion, dtype).numpy()
    rounding = tolerance * (1 + counts[:, 0] / 20)  # the log-mean is multiplied by the count
    assert (abs(result - expected) <= rounding + tolerance * abs(expected)).all()


@pytest.mark.parametrize(("dtype", "rtol"), [(PLAIN, 1e-10), (COMPILED, 1e-5)])
def test_a_cell_has_the_sum_over_its_genes(dtype, rtol):
    counts, mean, dispersion = example()
    result = ours(counts, mean, dispersion, dtype)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, scipys(counts, mean, dispersion).sum(1), rtol=rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(PLAIN, 1e-10), (COMPILED, 1e-5)])
def test_dispersions_follow_a_power_of_the_proportion(dtype, rtol):
    counts, mean, dispersion = example()
    slope = np.random.default_rng(1).normal(0, 0.3, len(dispersion))
    proportions = mean / mean.sum(axis=1, keepdims=True)
    by_cell = (dispersion * (proportions / proportions[0]) ** slope).clip(*np.exp(LIMITS))
    result = ours(counts, mean, dispersion, dtype, slope)
    np.testing.assert_allclose(result, scipys(counts, mean, by_cell).sum(1), rtol=rtol)


@BOTH
def test_cells_without_any_count(dtype):
    mean, dispersion = np.full((2, 3), 2.0), np.array([0.5, 1.0, 4.0])
    result = ours(np.zeros((2, 3), int), mean, dispersion, dtype)
    expected = scipys(np.zeros((2, 3)), mean, dispersion).sum(1)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_float32_keeps_many_equal_terms():
    """Large dispersions make both Gamma functions large and their difference small."""
    counts, mean, dispersion = np.full((1, 2000), 2), np.full((1, 2000), 2.0), np.full(2000, 9e3)
    result = ours(counts, mean, dispersion, COMPILED)
    np.testing.assert_allclose(result, scipys(counts, mean, dispersion).sum(1), rtol=3e-5)


MIXED = np.array([[0, 1, 50, 7], [5, 4, 6, 200], [0, 0, 0, 0], [9, 30, 2, 5]])


@pytest.mark.parametrize("outlier_rate", [0.0, 1e-3])
@pytest.mark.parametrize("counts", [np.zeros((2, 3), int), MIXED], ids=["no counts", "mixed"])
def test_gradients_of_the_formula_are_finite_differences(counts, outlier_rate):
    """Where outliers explain all of a count, a part of it, and next to nothing."""
    random, shape = np.random.default_rng(1), counts.shape
    sizes = (shape, shape[1], shape[1])
    given = tuple(torch.from_numpy(random.normal(0, 1, size)).requires_grad_() for size in sizes)
    library, fixed = torch.ones(len(counts), dtype=PLAIN), sparse(counts, PLAIN)

    def value(logits, offset, slope):
        arguments = (logits, library, offset, 0.3 * slope, fixed, outlier_rate)
        return negative_log_likelihood(*arguments)

    assert torch.autograd.gradcheck(value, given)


@pytest.mark.parametrize("outlier_rate", [0.0, 1e-3])
@BOTH
def test_logits_that_are_not_a_number_have_no_likelihood(dtype, outlier_rate):
    """Training stops when its loss is not a number, so that must not be lost."""
    logits, *others = inputs(np.full((3, 4), 2.0), np.ones(4), np.zeros(4), dtype)
    logits[1] = torch.nan
    counts = np.eye(3, 4) * 9
    by_cell = log_likelihoods(logits, *others, counts, dtype, outlier_rate)
    assert by_cell.isnan().tolist() == [False, True, False]
    assert negative_log_likelihood(logits, *others, sparse(counts, dtype), outlier_rate).isnan()


@BOTH
@pytest.mark.parametrize("which", [0, 1], ids=["offset", "slope"])
def test_dispersions_that_are_not_a_number_have_no_likelihood(dtype, which):
    logits, log_library, *genes = inputs(np.full((3, 4), 2.0), np.ones(4), np.zeros(4), dtype)
    genes[which][2] = torch.nan
    counts = sparse(np.eye(3, 4) * 9, dtype)
    assert negative_log_likelihood(logits, log_library, *genes, counts).isnan()


def test_the_precision_is_that_of_the_logits():
    counts, mean, dispersion = example(5, 30)
    single, double = (inputs(mean, dispersion, np.zeros(30), dtype) for dtype in (COMPILED, PLAIN))
    given = sparse(counts, COMPILED)
    mixed = negative_log_likelihood(single[0], *double[1:], given)
    assert negative_log_likelihood(*single, given) == mixed


# The outlier component

COUNTS = np.arange(300)[:, None]


def outlier_pmf(counts, rate):
    """Counts from m on whose survival function is m / x, times the rate."""
    tail = LEAST_OUTLIER / np.maximum(counts, 1) - LEAST_OUTLIER / (counts + 1)
    return np.where(counts >= LEAST_OUTLIER, rate * tail, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(PLAIN, 1e-8), (COMPILED, 2e-5)])
@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.2])
@pytest.mark.parametrize(
    ("mean", "dispersion"), [(0.01, 50.0), (0.5, 0.2), (4.0, 1e3), (100.0, 2.0)]
)
def test_a_count_has_the_sum_of_both_probabilities(mean, dispersion, rate, dtype, tolerance):
    pmf = nbinom.pmf(COUNTS, dispersion, dispersion / (dispersion + mean))
    expected = np.log(pmf + outlier_pmf(COUNTS, rate))[:, 0]
    result = ours(COUNTS, np.full((300, 1), mean), dispersion, dtype, outlier_rate=rate)
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def test_outliers_are_as_many_as_the_rate_says():
    assert abs(outlier_pmf(np.arange(1_000_000), 0.01).sum() / 0.01 - 1) < 1e-5


@BOTH
def test_small_counts_are_no_outliers(dtype):
    below, mean = COUNTS[:LEAST_OUTLIER], np.full((LEAST_OUTLIER, 1), 0.3)
    assert torch.equal(
        ours(below, mean, 0.7, dtype, outlier_rate=0.1), ours(below, mean, 0.7, dtype)
    )


def test_one_outlier_leaves_a_nearly_poisson_gene_so():
    """Without the outlier component one 50 among a thousand cells lowers the dispersion."""
    counts = np.random.default_rng(0).poisson(0.3, (1000, 1))
    with_outlier = counts.copy()
    with_outlier[0] = 50
    given = inputs(np.full((1000, 1), 0.3), np.array([20.0]), np.zeros(1), COMPILED)

    def by_offset(these, rate):
        return float(gradients(*given, sparse(these, COMPILED), rate)[1])

    with_component, without = (
        by_offset(with_outlier, rate) - by_offset(counts, rate) for rate in (1e-5, 0.0)
    )
    assert abs(with_component) < 0.01 * abs(without)
