import contextlib
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scld.errors import DataError
from scld.io.counts import TransformedCountsError, check_indices, count_matrix
from scld.io.read import read

COUNTS = np.random.default_rng(0).poisson(1.0, (20, 7)) + np.eye(20, 7, dtype=int)
COUNTS[:, 0] += 1  # no empty cell
KINDS = {
    "dense": np.asarray,
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
}
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"]


def make(matrix=COUNTS, **more):
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(matrix.shape[0])])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(matrix.shape[1])])
    return ad.AnnData(matrix, obs=obs, var=var, **more)


@contextlib.contextmanager
def refused(*words, error=DataError):
    """The error is ours, one line, and holds all these words."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# The same counts, whatever holds them


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_format_and_number_type(kind, dtype):
    matrix = count_matrix(read(make(KINDS[kind](COUNTS.astype(dtype)))))
    assert isinstance(matrix, sp.csr_matrix)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), COUNTS)


def test_half_precision_and_booleans():
    half = count_matrix(make(COUNTS.astype("float16")))
    np.testing.assert_array_equal(half.toarray(), COUNTS)
    sparse = sp.csr_matrix(COUNTS)
    sparse.data = sparse.data.astype("float16")
    np.testing.assert_array_equal(count_matrix(make(sparse)).toarray(), COUNTS)
    for matrix in (COUNTS > 0, sp.csr_matrix(COUNTS > 0)):
        np.testing.assert_array_equal(count_matrix(make(matrix)).toarray(), COUNTS > 0)


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i2", "<i8"])
@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_matrix])
def test_any_byte_order(kind, form):
    values = form(COUNTS)
    if sp.issparse(values):
        values.data = values.data.astype(kind)
    else:
        values = values.astype(kind)
    matrix = count_matrix(make(values))
    np.testing.assert_array_equal(matrix.toarray(), COUNTS)
    assert matrix.data.dtype.isnative


def test_one_cell_of_one_gene():
    assert count_matrix(make(np.array([[3]]))).toarray() == [[3]]


@pytest.mark.parametrize("dtype", ["int8", "float32"])  # int8 would overflow
def test_entries_stored_twice_are_added_and_zeros_are_dropped(dtype):
    values = np.array([100, 100, 0, 2], dtype)
    matrix = count_matrix(make(sp.csr_matrix((values, [3, 3, 1, 0], [0, 4]), shape=(1, 5))))
    np.testing.assert_array_equal(matrix.toarray(), [[2, 0, 0, 200, 0]])
    assert matrix.nnz == 2
    assert matrix.has_canonical_format


def test_the_input_is_not_modified():
    values = np.array([1.0, 4.0, 0.0, 2.0], "float32")
    adata = make(sp.csr_matrix((values, [3, 3, 1, 0], [0, 4]), shape=(1, 5)))
    matrix = count_matrix(read(adata))
    matrix.data[:] = 9
    np.testing.assert_array_equal(adata.X.data, [1, 4, 0, 2])
    np.testing.assert_array_equal(adata.X.indices, [3, 3, 1, 0])
    assert not adata.uns


def test_negative_zero_is_zero():
    matrix = count_matrix(make(np.where(COUNTS == 0, -0.0, COUNTS)))
    assert matrix.data.min() > 0
    np.testing.assert_array_equal(matrix.toarray(), COUNTS)


def test_the_largest_count_that_float32_holds_is_kept_exactly():
    largest = np.array([[2**24 - 1, 1]])
    assert count_matrix(make(largest)).toarray().tolist() == largest.tolist()


# What is not counts

NOT_COUNTS = {
    -1: ("negative", "-1"),
    np.nan: ("non-finite", "nan"),
    np.inf: ("non-finite", "inf"),
    -np.inf: ("non-finite", "-inf"),
    0.5: ("0.5", "log-normalised"),
    1234.5: ("1234", "normalised"),
    2.0**24: ("16,777,216", "UMI"),
    1e300: ("1e+300", "UMI"),
}


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
@pytest.mark.parametrize("value", NOT_COUNTS)
def test_values_that_are_not_counts(kind, value):
    matrix = COUNTS.astype(float)
    matrix[3, 3] = value
    with refused("X: ", "counts", *NOT_COUNTS[value]):
        count_matrix(make(KINDS[kind](matrix)))


def test_transformed_values_have_an_error_of_their_own():
    with refused("1.5", error=TransformedCountsError):
        count_matrix(make(COUNTS / 2))
    with pytest.raises(DataError) as caught:
        count_matrix(make(-COUNTS))
    assert not isinstance(caught.value, TransformedCountsError)


def test_fractions_that_add_up_to_a_count_are_still_fractions():
    with refused("0.5"):
        count_matrix(make(sp.csr_matrix((np.array([0.5, 0.5]), [0, 0], [0, 2]), shape=(1, 2))))


@pytest.mark.parametrize("dtype", ["complex64", "str", "object", "datetime64[s]"])
def test_a_matrix_of_something_else_than_numbers(dtype):
    with refused("X: ", "not real numbers"):
        count_matrix(make(COUNTS.astype(dtype)))


def test_the_layers_that_could_hold_the_counts_are_named(tmp_path):
    adata = make(np.log1p(COUNTS), layers={"counts": COUNTS, "logs": np.log1p(COUNTS)})
    layers = "layers here: 'counts', 'logs'"
    with refused("X: ", "log-normalised", layers):
        count_matrix(read(adata))
    with refused("layer 'logs': ", "log-normalised", layers):
        count_matrix(read(adata, "logs"))
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    with refused("cells.h5ad: X: ", "log-normalised", layers):
        count_matrix(read(path))
    with refused("cells.h5ad: layer 'logs': "):
        count_matrix(read(path, "logs"))


def test_the_caller_may_name_the_place():
    with refused("the training cells: "):
        count_matrix(make(-COUNTS), "the training cells")


def test_cells_without_counts():
    matrix = COUNTS.copy()
    matrix[[4, 7]] = 0
    with refused("X: ", "2 of 20 cells", "'cell4'"):
        count_matrix(make(matrix))
    with refused("20 of 20 cells"):
        count_matrix(make(sp.csr_matrix(COUNTS.shape)))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_no_cells_or_no_genes(shape):
    with refused("X: ", f"{shape[0]} cells x {shape[1]} genes"):
        count_matrix(make(np.zeros(shape)))


def test_no_matrix():
    adata = make(layers={"counts": COUNTS})
    del adata.X
    with refused("X: ", "no matrix", "layers here: 'counts'"):
        count_matrix(read(adata))


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
@pytest.mark.parametrize("in_file", [False, True])
def test_repeated_gene_names(tmp_path, in_file):
    adata = make()
    adata.var_names = ["a", "b", "a", "c", "d", "a", "e"]
    if in_file:
        adata.write_h5ad(tmp_path / "cells.h5ad")
    with refused("X: ", "gene 'a'", "3 times", "var_names"):
        count_matrix(read(tmp_path / "cells.h5ad" if in_file else adata))


def test_reading_repeated_gene_names_warns_of_nothing_that_the_error_says(tmp_path):
    adata = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        adata.var_names = ["a"] * 7
        adata.write_h5ad(tmp_path / "cells.h5ad")
    with refused("gene 'a' occurs 7 times"):
        count_matrix(read(tmp_path / "cells.h5ad"))


def test_a_gene_without_a_name():
    adata = make()
    adata.var.index = pd.Index(["a", "b", None, "c", "d", "e", "f"])
    with refused("gene 3 of 7", "var_names"):
        count_matrix(adata)


@pytest.mark.parametrize(("part", "values"), [("indices", [99]), ("indptr", [0, -5])])
def test_a_sparse_matrix_with_indices_out_of_bounds_is_refused_before_it_is_used(
    tmp_path, part, values
):
    path = tmp_path / "cells.h5ad"
    make(sp.csr_matrix(COUNTS)).write_h5ad(path)
    with h5py.File(path, "a") as file:
        file[f"X/{part}"][: len(values)] = values
    with refused("cells.h5ad: X: ", "damaged"):
        count_matrix(read(path))


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "is empty"), ("a\0", "NUL"), ("\ud800", "Unicode"), ("x" * 5000, "5,000")],
)
def test_genes_that_no_file_can_hold_are_refused(name, why):
    cells = ad.AnnData(np.ones((3, 2), np.float32), var=pd.DataFrame(index=["a", name]))
    with pytest.raises(DataError, match=why):
        count_matrix(cells)


def test_another_origin_in_uns_is_not_ours():
    cells = make(COUNTS)
    cells.uns["scld_origin"] = 3
    np.testing.assert_array_equal(count_matrix(cells).toarray(), COUNTS)


@pytest.mark.parametrize("pointers", [[0, 1, -5], [0, 2**62, 2], [0, 2, 1]], ids=str)
def test_pointers_outside_the_matrix_are_refused(pointers):
    """The first would crash in compiled code: scipy checks nothing if the last is negative."""
    matrix = sp.csr_matrix(np.ones((2, 1), np.float32))
    matrix.indptr = np.array(pointers, np.int64)
    with pytest.raises(DataError, match="damaged sparse matrix"):
        check_indices(matrix, "X")
