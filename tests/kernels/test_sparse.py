import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scld.kernels.sparse import PaddedCounts, SparseCounts

MATRIX = sp.random(9, 14, 0.4, format="csr", dtype=np.float32, random_state=0)
MATRIX.data = np.ceil(9 * MATRIX.data)
MATRIX = sp.csr_matrix(
    sp.vstack([MATRIX, sp.csr_matrix((1, 14))]), dtype=np.float32
)  # the last cell is empty
CELLS = torch.tensor([7, 9, 2, 2])
PLACES = int(np.diff(MATRIX.indptr).max())


def csr(matrix):
    return SparseCounts(
        *(torch.from_numpy(x) for x in (matrix.data, matrix.indices, matrix.indptr))
    )


def padded(cells=CELLS):
    return PaddedCounts.gather(csr(MATRIX), cells, PLACES)


LAYOUTS = pytest.mark.parametrize(
    "counts", [csr(MATRIX[CELLS.numpy()]), padded()], ids=["csr", "padded"]
)


@LAYOUTS
def test_both_layouts_hold_the_counts_of_the_cells(counts):
    dense = counts.product(counts.values, torch.eye(14))
    np.testing.assert_array_equal(dense, MATRIX[CELLS.numpy()].toarray())


@LAYOUTS
def test_the_gradient_of_a_product_is_that_of_the_dense_one(counts):
    weights = torch.randn(14, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    dense = torch.from_numpy(MATRIX[CELLS.numpy()].toarray())
    loss = (counts.product(counts.values, weights) ** 2).sum()
    expected = ((dense @ weights) ** 2).sum()
    one, other = (torch.autograd.grad(each, weights)[0] for each in (loss, expected))
    torch.testing.assert_close(one, other)


@LAYOUTS
def test_elements_at_the_counts_and_their_sums(counts):
    dense = torch.arange(4.0 * 14).reshape(4, 14)
    expected = np.where(MATRIX[CELLS.numpy()].toarray() > 0, dense, 0).sum(axis=1)
    np.testing.assert_allclose(counts.sum(counts.pick(dense)), expected)


@LAYOUTS
def test_a_value_per_cell_meets_each_count_of_the_cell(counts):
    of_cells = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    expected = of_cells * torch.from_numpy(MATRIX[CELLS.numpy()].toarray()).sum(1)
    torch.testing.assert_close(counts.sum(counts.values * counts.per_count(of_cells)), expected)


def test_places_not_needed_are_spread_over_genes():
    """Their zeros are added to many genes, not all to one, which a GPU would do one by one."""
    genes = padded(torch.tensor([9])).genes
    assert genes.tolist() == [list(range(PLACES))]
