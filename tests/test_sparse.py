import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scld import sparse


def entries(matrix, dtype=torch.float32):
    return torch.from_numpy(matrix.data).to(dtype), torch.from_numpy(matrix.indices), torch.from_numpy(matrix.indptr)


def some(cells, genes, width, density=0.2):
    random = np.random.default_rng(cells)
    matrix = sp.random_array((cells, genes), density=density, format="csr", rng=random)
    return matrix, random.normal(size=(genes, width)), random.normal(size=(cells, width))


def both(matrix, weights, pull, dtype=torch.float32):
    """The product, and the gradient of its scalar product with a pull."""
    weights = torch.from_numpy(weights).to(dtype).requires_grad_()
    result = sparse.product(*entries(matrix, dtype), weights)
    result.backward(torch.from_numpy(pull).to(dtype))
    return result.detach(), weights.grad


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    ("cells", "genes", "width", "density"),
    [(1, 1, 1, 1.0), (7, 50, 3, 0.2), (3, 5, 128, 0.9), (40, 2500, 17, 0.1), (5, 1024, 8, 0.5), (5, 1025, 8, 0.5), (6, 30, 4, 0.0)],
)
def test_it_is_scipys_product_and_its_gradient_that_of_the_transposed(cells, genes, width, density, dtype, rtol):
    """Within a block of genes, over several, and with nothing at all in the matrix."""
    matrix, weights, pull = some(cells, genes, width, density)
    result, gradient = both(matrix, weights, pull, dtype)
    np.testing.assert_allclose(result, matrix @ weights, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(gradient, matrix.T @ pull, rtol=rtol, atol=rtol)


def test_cells_and_genes_without_an_entry_get_zeros():
    matrix, weights, pull = some(9, 600, 5)
    matrix = matrix.tolil()
    matrix[[0, 4, 8]], matrix[:, [0, 300, 599]] = 0, 0
    result, gradient = both(matrix.tocsr(), weights, pull)
    assert (result[[0, 4, 8]] == 0).all()
    assert (gradient[[0, 300, 599]] == 0).all()


def test_it_takes_indices_of_any_width():
    """Those of a matrix with more than two billion entries are wide."""
    matrix, weights, pull = some(9, 600, 5)
    wide = matrix.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    for narrow, other in zip(both(matrix, weights, pull), both(wide, weights, pull), strict=True):
        assert torch.equal(narrow, other)


def test_weights_may_be_stored_by_columns():
    matrix, weights, pull = some(9, 600, 5)
    for one, other in zip(both(matrix, weights, pull), both(matrix, np.asfortranarray(weights), np.asfortranarray(pull)), strict=True):
        assert torch.equal(one, other)


def test_it_is_the_same_for_any_number_of_threads(threads):
    results = []
    for number in (1, 2, 4):
        threads(number)
        results.append(both(*some(37, 3000, 16)))
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))
