"""nll_compiled against nll_plain: value and gradients."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scld.kernels.likelihood import LIMITS, log_dispersion, nll_compiled, nll_plain
from scld.kernels.sparse import PaddedCounts, SparseCounts

RATES = pytest.mark.parametrize("outlier_rate", [0.0, 1e-3])


def example(cells, genes, dtype=torch.float32):
    """Logits, log library sizes, offset, slope and counts; one cell is empty, some counts high."""
    random = np.random.default_rng(0)
    mean = random.lognormal(-1, 2, (cells, genes))
    dispersion = random.lognormal(1, 1.5, genes).clip(0.02, 9e3)
    counts = random.poisson(mean * random.gamma(dispersion, 1 / dispersion, mean.shape))
    counts[0, ::7] += 40
    counts[3] = 0
    library, slope = np.log(mean.sum(axis=1)), random.normal(0, 0.3, genes)
    offset = np.log(dispersion) - slope * (np.log(mean[0]) - library[0])
    shifted = np.log(mean) + np.arange(cells)[:, None]  # the softmax removes what a cell shares
    arrays = (np.ascontiguousarray(array) for array in (shifted, library, offset, slope))
    matrix = sp.csr_matrix(counts.astype(np.float64))
    sparse = SparseCounts(
        torch.from_numpy(matrix.data).to(dtype),
        torch.from_numpy(matrix.indices),
        torch.from_numpy(matrix.indptr),
    )
    return *(torch.from_numpy(array).to(dtype) for array in arrays), sparse


def value_and_gradients(version, logits, library, offset, slope, counts, outlier_rate):
    inputs = [part.detach().requires_grad_() for part in (logits, offset, slope)]
    value = version(inputs[0], library, *inputs[1:], counts, outlier_rate)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@RATES
@pytest.mark.parametrize("shape", [(37, 301), (70, 4100)], ids=str)
def test_the_compiled_version_is_the_plain_formula(shape, outlier_rate):
    """Within a block of cells and genes, and over several."""
    exact = value_and_gradients(nll_plain, *example(*shape, torch.float64), outlier_rate)
    fast = value_and_gradients(nll_compiled, *example(*shape), outlier_rate)
    for one, other in zip(fast, exact, strict=True):
        atol = 1e-4 * float(other.abs().mean()) + 1e-5
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=atol)


@RATES
def test_padded_counts_have_the_same_likelihood(outlier_rate):
    *inputs, counts = example(37, 301, torch.float64)
    cells, places = torch.arange(37), int(counts.starts.diff().max())
    padded = PaddedCounts.gather(counts, cells, places)
    exact, other = (
        value_and_gradients(nll_plain, *inputs, layout, outlier_rate) for layout in (counts, padded)
    )
    for one, two in zip(exact, other, strict=True):
        torch.testing.assert_close(one, two)


@RATES
@pytest.mark.parametrize("cells", [1, 2, 3, 5])
def test_a_batch_of_fewer_cells_than_parts(cells, outlier_rate):
    logits, library, offset, slope, counts = example(37, 30)
    starts = counts.starts[: cells + 1]
    some = SparseCounts(counts.values[: starts[-1]], counts.genes[: starts[-1]], starts)
    inputs = (logits[:cells], library[:cells], offset, slope, some, outlier_rate)
    exact, fast = (value_and_gradients(version, *inputs) for version in (nll_plain, nll_compiled))
    for one, other in zip(fast, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_gradients_are_scaled_by_what_follows():
    logits, *others = example(5, 30)
    logits.requires_grad_()
    once, thrice = (
        torch.autograd.grad(factor * nll_compiled(logits, *others, 0.0), logits)[0]
        for factor in (1, 3)
    )
    torch.testing.assert_close(3 * once, thrice)


def test_no_gradient_reaches_library_sizes():
    logits, library, *others = example(5, 30)
    library.requires_grad_()
    for version in (nll_plain, nll_compiled):
        value = version(logits.requires_grad_(), library, *others, 0.0)
        assert torch.autograd.grad(value, library, allow_unused=True) == (None,)


def test_value_and_gradients_are_the_same_bytes_for_any_number_of_threads(threads):
    results = []
    for number in (1, 2, 3, 4):
        threads(number)
        results.append(value_and_gradients(nll_compiled, *example(37, 301), 1e-3))
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))


def test_the_compiled_version_takes_inputs_stored_in_any_way():
    """By columns, with gaps, with int64 indices, and where float64 is torch's default."""
    logits, library, offset, slope, counts = example(37, 301)
    gaps = [part.repeat_interleave(2)[::2] for part in (library, offset, slope)]
    wide = counts._replace(genes=counts.genes.long(), starts=counts.starts.long())
    usual = (logits, library, offset, slope, counts)
    other = (logits.T.contiguous().T, *gaps, wide)
    assert not other[0].is_contiguous()
    results = []
    for dtype, inputs in ((torch.float32, usual), (torch.float64, other)):
        torch.set_default_dtype(dtype)
        try:
            results.append(value_and_gradients(nll_compiled, *inputs, 1e-3))
        finally:
            torch.set_default_dtype(torch.float32)
    for one, two in zip(*results, strict=True):
        assert one.dtype == two.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_log_dispersions_stay_within_limits_that_gradients_ignore():
    offset = torch.tensor([-50.0, 0.5, 50.0], requires_grad=True)
    result = log_dispersion(torch.zeros(1, 3), offset, torch.zeros(3))
    torch.testing.assert_close(result, torch.tensor([[LIMITS[0], 0.5, LIMITS[1]]]))
    assert torch.autograd.grad(result.sum(), offset)[0].tolist() == [1, 1, 1]


def test_a_value_per_cell_is_repeated_for_each_of_its_counts():
    starts = torch.tensor([0, 2, 2, 5])
    counts = SparseCounts(torch.ones(5), torch.tensor([0, 3, 0, 1, 2]), starts)
    assert counts.per_count(torch.tensor([7, 8, 9])).tolist() == [7, 7, 9, 9, 9]
