import numpy as np
import pytest
import scipy.sparse as sp
from toy import make_cells

from scld.io.disk import (
    DiskCounts,
    gene_totals,
    gene_variances,
    library_sizes,
    row_blocks,
    some_genes,
    some_rows,
)

MATRIX = sp.csr_matrix(make_cells(50).X)


@pytest.fixture
def disk(tmp_path):
    """Written in blocks of different sizes."""
    blocks = [MATRIX[:7], MATRIX[7:8], MATRIX[8:40], MATRIX[40:]]
    return DiskCounts.write(blocks, tmp_path)


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(10, 20),
        slice(50, 60),
        np.array([3]),
        np.array([5, 6, 7, 30, 49]),
        np.array([49, 0, 0, 12]),
        np.array([], np.int64),
    ],
    ids=str,
)
def test_rows_are_those_of_the_matrix(disk, rows):
    some = disk[rows]
    assert some.dtype == np.float32
    assert (some != MATRIX[rows]).nnz == 0
    assert some.has_canonical_format


def test_sizes_are_those_of_the_matrix(disk):
    assert (disk.shape, disk.nnz) == (MATRIX.shape, MATRIX.nnz)


def test_rows_of_rows_and_genes_are_not_read(disk):
    rows, kept = np.array([30, 2, 8, 9]), np.asarray(MATRIX.sum(axis=0)).ravel() > 0
    part = some_genes(some_rows(disk, rows), kept)
    expected = MATRIX[rows][:, kept]
    assert isinstance(part, DiskCounts)
    assert part.shape == expected.shape
    assert (part[np.array([1, 3])] != expected[[1, 3]]).nnz == 0
    assert (part.rows(np.array([2]))[:] != expected[2]).nnz == 0


def test_sums_beyond_the_precision_of_the_counts_are_exact():
    counts = sp.csr_matrix(np.full((60, 3), 2**24 - 1, np.float32))
    assert gene_totals(counts).tolist() == [60 * (2**24 - 1)] * 3
    assert library_sizes(counts).tolist() == [3 * (2**24 - 1)] * 60
    assert gene_variances(counts).tolist() == [0] * 3


def test_a_matrix_in_memory_has_the_same_functions(disk):
    rows, kept = np.array([30, 2]), np.asarray(MATRIX.sum(axis=0)).ravel() > 0
    for counts in (disk, MATRIX):
        np.testing.assert_array_equal(library_sizes(counts), MATRIX.toarray().sum(axis=1))
        np.testing.assert_array_equal(gene_totals(counts), MATRIX.toarray().sum(axis=0))
        variances = MATRIX.toarray().astype(float).var(axis=0)
        np.testing.assert_allclose(gene_variances(counts), variances)
        some = some_genes(some_rows(counts, rows), kept)[:]
        assert (some != MATRIX[rows][:, kept]).nnz == 0


def test_blocks_cover_all_cells(disk, monkeypatch):
    monkeypatch.setattr("scld.io.disk._BLOCK", 20)
    for counts in (disk, MATRIX):
        spans, blocks = zip(*row_blocks(counts), strict=True)
        assert [(span.start, span.stop) for span in spans] == [(0, 20), (20, 40), (40, 50)]
        assert (sp.vstack(blocks) != MATRIX).nnz == 0
