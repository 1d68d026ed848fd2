import contextlib
import json
import shutil
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import chisquare

from scld.data import count_matrix, read
from scld.errors import DataError, RequestError, nearest
from scld.schema import MISSING, Schema, encode_labels

COUNTS = np.random.default_rng(0).poisson(1.0, (20, 7)) + np.eye(20, 7, dtype=int)
COUNTS[:, 0] += 1  # no empty cell


def cells(matrix=COUNTS, **more):
    obs = pd.DataFrame({"cell_type": [("B", "T", "NK")[i % 3] for i in range(matrix.shape[0])]}, index=[f"cell{i}" for i in range(matrix.shape[0])])
    return ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(matrix.shape[1])]), **more)


def write(adata, path, zarr_format=2):
    with warnings.catch_warnings(), ad.settings.override(zarr_write_format=zarr_format):
        warnings.simplefilter("ignore")
        adata.write_h5ad(path) if path.suffix == ".h5ad" else adata.write_zarr(path)
    return path


@contextlib.contextmanager
def refused(*words, error=DataError):
    """The error is ours, stands in one line, and says all these words."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# One matrix, whatever holds it

KINDS = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix, "csr_array": sp.csr_array, "csc_array": sp.csc_array}
TYPES = ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_memory(kind, dtype):
    matrix = count_matrix(read(cells(KINDS[kind](COUNTS.astype(dtype)))))
    assert isinstance(matrix, sp.csr_matrix)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), COUNTS)


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
@pytest.mark.parametrize(("ending", "zarr_format"), [("h5ad", 2), ("zarr", 2), ("zarr", 3)])
def test_files(tmp_path, ending, zarr_format, kind, layer):
    matrix = KINDS[kind](COUNTS.astype("float32"))
    adata = cells(matrix) if layer is None else cells(matrix * 0.5, layers={"counts": matrix})
    back = read(write(adata, tmp_path / f"cells.{ending}", zarr_format), layer)
    np.testing.assert_array_equal(count_matrix(back).toarray(), COUNTS)
    pd.testing.assert_frame_equal(back.obs, adata.obs, check_categorical=False, check_dtype=False)
    assert list(back.var_names) == list(adata.var_names)


@pytest.mark.parametrize("path_as", [str, lambda path: path])
def test_a_path_may_be_text_and_its_ending_in_capitals(tmp_path, path_as):
    path = write(cells(), tmp_path / "cells.h5ad").rename(tmp_path / "CELLS.H5AD")
    np.testing.assert_array_equal(count_matrix(read(path_as(path))).toarray(), COUNTS)


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(cells(), tmp_path / "cells.h5ad")
    assert read("~/cells.h5ad").shape == COUNTS.shape


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_backed_cells_are_read_as_they_stand_in_memory(tmp_path, kind):
    path = write(cells(KINDS[kind](COUNTS), layers={"twice": KINDS[kind](2 * COUNTS)}), tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(path, backed="r")
    backed.obs["donor"] = "d1"
    np.testing.assert_array_equal(count_matrix(read(backed)).toarray(), COUNTS)
    np.testing.assert_array_equal(count_matrix(read(backed, "twice")).toarray(), 2 * COUNTS)
    np.testing.assert_array_equal(count_matrix(read(backed[3:9, ::2])).toarray(), COUNTS[3:9, ::2])
    assert "donor" in read(backed).obs


def test_a_view_is_its_own_cells():
    np.testing.assert_array_equal(count_matrix(read(cells(sp.csr_matrix(COUNTS))[3:9, ::-1])).toarray(), COUNTS[3:9, ::-1])


def test_dask():
    import dask.array as dask

    np.testing.assert_array_equal(count_matrix(read(cells(dask.from_array(COUNTS, chunks=5)))).toarray(), COUNTS)


def test_half_precision_and_booleans():
    np.testing.assert_array_equal(count_matrix(cells(COUNTS.astype("float16"))).toarray(), COUNTS)
    np.testing.assert_array_equal(count_matrix(cells(COUNTS > 0)).toarray(), COUNTS > 0)
    np.testing.assert_array_equal(count_matrix(cells(sp.csr_matrix(COUNTS > 0))).toarray(), COUNTS > 0)


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i2", "<i8"])
@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_matrix])
def test_any_order_of_bytes(kind, form):
    values = form(COUNTS)
    if sp.issparse(values):
        values.data = values.data.astype(kind)
    matrix = count_matrix(cells(values if sp.issparse(values) else values.astype(kind)))
    np.testing.assert_array_equal(matrix.toarray(), COUNTS)
    assert matrix.data.dtype.isnative


def test_one_cell_of_one_gene():
    assert count_matrix(cells(np.array([[3]]))).toarray() == [[3]]


@pytest.mark.parametrize("dtype", ["int8", "float32"])  # int8 would overflow
def test_entries_stored_twice_add_up_and_zeros_are_dropped(dtype):
    stored = sp.csr_matrix((np.array([100, 100, 0, 2], dtype), [3, 3, 1, 0], [0, 4]), shape=(1, 5))
    matrix = count_matrix(cells(stored))
    np.testing.assert_array_equal(matrix.toarray(), [[2, 0, 0, 200, 0]])
    assert matrix.nnz == 2
    assert matrix.has_canonical_format


def test_what_is_handed_in_stays_as_it_is():
    stored = sp.csr_matrix((np.array([1.0, 4.0, 0.0, 2.0], "float32"), [3, 3, 1, 0], [0, 4]), shape=(1, 5))
    adata = cells(stored)
    matrix = count_matrix(read(adata))
    matrix.data[:] = 9
    np.testing.assert_array_equal(adata.X.data, [1, 4, 0, 2])
    np.testing.assert_array_equal(adata.X.indices, [3, 3, 1, 0])
    assert not adata.uns


def test_negative_zero_is_zero():
    matrix = count_matrix(cells(np.where(COUNTS == 0, -0.0, COUNTS)))
    assert matrix.data.min() > 0
    np.testing.assert_array_equal(matrix.toarray(), COUNTS)


def test_the_largest_count_that_float32_holds_is_kept_exactly():
    assert count_matrix(cells(np.array([[2**24 - 1, 1]]))).toarray().tolist() == [[2**24 - 1, 1]]


# What is not counts

NOT_COUNTS = {
    -1: ("negative", "-1"),
    np.nan: ("not finite", "nan"),
    np.inf: ("not finite", "inf"),
    -np.inf: ("not finite", "-inf"),
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
        count_matrix(cells(KINDS[kind](matrix)))


def test_fractions_that_add_up_to_a_count_are_still_fractions():
    with refused("0.5"):
        count_matrix(cells(sp.csr_matrix((np.array([0.5, 0.5]), [0, 0], [0, 2]), shape=(1, 2))))


@pytest.mark.parametrize("dtype", ["complex64", "str", "object", "datetime64[s]"])
def test_a_matrix_of_something_else_than_numbers(dtype):
    with refused("X: ", "not real numbers"):
        count_matrix(cells(COUNTS.astype(dtype)))


def test_the_layers_that_could_hold_the_counts_are_named(tmp_path):
    adata = cells(np.log1p(COUNTS), layers={"counts": COUNTS, "logs": np.log1p(COUNTS)})
    with refused("X: ", "log-normalised", "layers here: 'counts', 'logs'"):
        count_matrix(read(adata))
    with refused("layer 'logs': ", "log-normalised", "layers here: 'counts', 'logs'"):
        count_matrix(read(adata, "logs"))
    path = write(adata, tmp_path / "cells.h5ad")
    with refused("cells.h5ad: X: ", "log-normalised", "layers here: 'counts', 'logs'"):
        count_matrix(read(path))
    with refused("cells.h5ad: layer 'logs': "):
        count_matrix(read(path, "logs"))


def test_the_caller_may_name_the_place():
    with refused("the training cells: "):
        count_matrix(cells(-COUNTS), "the training cells")


@pytest.mark.parametrize("in_file", [False, True])
def test_missing_layer(tmp_path, in_file):
    adata = cells(layers={"counts": COUNTS})
    source = write(adata, tmp_path / "cells.h5ad") if in_file else adata
    with refused("layer 'count'", "its layers: 'counts'", "did you mean 'counts'?"):
        read(source, "count")


def test_missing_layer_where_there_is_none():
    with refused("layer 'counts'", "its layers: none"):
        read(cells(), "counts")


def test_cells_without_counts():
    matrix = COUNTS.copy()
    matrix[[4, 7]] = 0
    with refused("X: ", "2 of 20 cells", "'cell4'"):
        count_matrix(cells(matrix))
    with refused("20 of 20 cells"):
        count_matrix(cells(sp.csr_matrix(COUNTS.shape)))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_no_cells_or_no_genes(shape):
    with refused("X: ", f"{shape[0]} cells x {shape[1]} genes"):
        count_matrix(cells(np.zeros(shape)))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_no_matrix(tmp_path, ending):
    adata = cells(layers={"counts": COUNTS})
    del adata.X
    with refused("X: ", "no matrix", "layers here: 'counts'"):
        count_matrix(read(adata))
    path = write(adata, tmp_path / f"cells.{ending}")
    with refused(f"cells.{ending}", "no 'X'", "layers here: 'counts'"):
        read(path)
    np.testing.assert_array_equal(count_matrix(read(path, "counts")).toarray(), COUNTS)


@pytest.mark.parametrize("in_file", [False, True])
def test_repeated_gene_names(tmp_path, in_file):
    adata = cells()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.var_names = ["a", "b", "a", "c", "d", "a", "e"]
        source = write(adata, tmp_path / "cells.h5ad") if in_file else adata
    with refused("X: ", "gene 'a'", "3 times", "var_names"):
        count_matrix(read(source))


def test_a_gene_without_a_name():
    adata = cells()
    adata.var.index = pd.Index(["a", "b", None, "c", "d", "e", "f"])
    with refused("gene 3 of 7", "var_names"):
        count_matrix(adata)


def test_a_sparse_matrix_whose_indices_lead_outside_is_refused_before_it_is_used(tmp_path):
    for part, values in {"indices": [99], "indptr": [0, -5]}.items():
        path = write(cells(sp.csr_matrix(COUNTS)), tmp_path / "cells.h5ad")
        with h5py.File(path, "a") as file:
            file[f"X/{part}"][: len(values)] = values
        with refused("cells.h5ad: X: ", "damaged"):
            count_matrix(read(path))


# What is not a file of cells


def test_no_such_file(tmp_path):
    write(cells(), tmp_path / "atlas.h5ad")
    with refused("atlsa.h5ad", "no such file", "did you mean 'atlas.h5ad'?"):
        read(tmp_path / "atlsa.h5ad")
    with refused("no such file"):
        read(tmp_path / "no folder" / "atlas.h5ad")
    with refused("two lines.h5ad", "no such file"):
        read(tmp_path / "two\nlines.h5ad")


@pytest.mark.parametrize("name", ["cells.csv", "cells.h5", "cells"])
def test_another_ending(tmp_path, name):
    (tmp_path / name).write_text("gene,cell")
    with refused(name, ".h5ad", ".zarr"):
        read(tmp_path / name)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file(tmp_path, share):
    path = write(cells(sp.csr_matrix(COUNTS)), tmp_path / "cells.h5ad")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with refused("cells.h5ad", "cannot be read"):
        read(path)


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_a_file_of_something_else(tmp_path, name):
    (tmp_path / name).write_text("not\ncells")
    with refused(name, "cannot be read"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_an_empty_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    with refused(name, "cannot be read"):
        read(tmp_path / name)


@pytest.mark.parametrize("part", ["X", "obs", "var"])
def test_a_file_without_a_part(tmp_path, part):
    path = write(cells(), tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        del file[part]
    with refused("cells.h5ad", f"no '{part}'"):
        read(path)


def test_parts_that_do_not_fit_together(tmp_path):
    path = write(cells(), tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        del file["X"]
        ad.io.write_elem(file, "X", COUNTS[:5])
    with refused("cells.h5ad", "cannot be read"):
        read(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("part", ["X", "obs", "var", "X/indices", "obs/cell_type"])
def test_a_store_that_lost_a_part(tmp_path, zarr_format, part):
    path = write(cells(sp.csr_matrix(COUNTS)), tmp_path / "cells.zarr", zarr_format)
    shutil.rmtree(path / part)
    with refused("cells.zarr"):
        read(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_that_lost_its_counts_is_not_read_as_zeros(tmp_path, zarr_format):
    path = write(cells(sp.csr_matrix(COUNTS)), tmp_path / "cells.zarr", zarr_format)
    chunks = [file for file in (path / "X/data").rglob("*") if file.is_file() and not file.name.startswith(".z") and file.name != "zarr.json"]
    assert chunks
    for chunk in chunks:
        chunk.unlink()
    with refused("cells.zarr", "chunks of the counts are lost"):
        read(path)


@pytest.mark.parametrize("source", [None, COUNTS, pd.DataFrame(COUNTS), b"cells.h5ad", 3])
def test_another_source(source):
    with refused("source: ", type(source).__name__, ".h5ad"):
        read(source)


# Labels

COLUMNS = {  # a column of obs -> categories, codes
    "text": (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
    "text and nan": (["b", np.nan, "a"], ("a", "b"), [1, -1, 0]),
    "text and None": (["b", None, "a"], ("a", "b"), [1, -1, 0]),
    "text and NA": (pd.Series(["b", pd.NA, "a"], dtype=object), ("a", "b"), [1, -1, 0]),
    "text and NaT": (pd.Series(["b", pd.NaT, "a"], dtype=object), ("a", "b"), [1, -1, 0]),
    "the text nan": (["nan", "a", "nan"], ("a", "nan"), [1, 0, 1]),
    "empty text": (["", "a", "a"], ("", "a"), [0, 1, 1]),
    "two lines": (["x\ny", "x y", "x y"], ("x\ny", "x y"), [0, 1, 1]),
    "nullable text": (pd.Series(["b", None, "a"], dtype="string"), ("a", "b"), [1, -1, 0]),
    "integers": ([10, 9, 10], (9, 10), [1, 0, 1]),
    "small integers": (pd.Series([10, 9, 10], dtype="int8"), (9, 10), [1, 0, 1]),
    "nullable integers": (pd.Series([10, None, 9], dtype="Int64"), (9, 10), [1, -1, 0]),
    "whole floats": ([10.0, np.nan, 9.0], (9.0, 10.0), [1, -1, 0]),
    "nullable floats": (pd.Series([10.0, None, 9.0], dtype="Float64"), (9.0, 10.0), [1, -1, 0]),
    "booleans": ([True, False, True], (False, True), [1, 0, 1]),
    "nullable booleans": (pd.Series([True, None, False], dtype="boolean"), (False, True), [1, -1, 0]),
    "booleans and None": (pd.Series([True, None, False], dtype=object), (False, True), [1, -1, 0]),
    "categories": (pd.Categorical(["b", "a", "b"], categories=["b", "a"]), ("b", "a"), [0, 1, 0]),
    "unused categories": (pd.Categorical(["c", None, "a"], categories=["c", "b", "a"]), ("c", "a"), [0, -1, 1]),
    "integer categories": (pd.Categorical([3, 1, 3], categories=[3, 1]), (3, 1), [0, 1, 0]),
    "boolean categories": (pd.Categorical([True, False, None]), (False, True), [1, 0, -1]),
    "fraction categories": (pd.Categorical([0.5, 1.0, 0.5]), (0.5, 1.0), [0, 1, 0]),
    "intervals": (pd.cut([1, 5, 2], [0, 2, 6]), ("(0, 2]", "(2, 6]"), [0, 1, 0]),
    "dates": (pd.to_datetime(["2021-01-02", None, "2020-01-02"]), ("2020-01-02 00:00:00", "2021-01-02 00:00:00"), [1, -1, 0]),
    "one category": (["a", "a", "a"], ("a",), [0, 0, 0]),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_labels(column):
    values, categories, codes = COLUMNS[column]
    obs = pd.DataFrame({"label": values})
    schema = Schema.of(obs, ["label"])
    assert schema.labels[0].categories == categories
    assert [type(category) for category in schema.labels[0].categories] == [type(category) for category in categories]
    assert schema.codes(obs)[:, 0].tolist() == codes
    assert schema.sizes == (len(categories),)
    assert dict(zip(schema.combinations[:, 0].tolist(), schema.cells.tolist(), strict=True)) == {code: codes.count(code) for code in codes}


@pytest.mark.parametrize("column", COLUMNS)
def test_labels_there_and_back(tmp_path, column):
    values, categories, codes = COLUMNS[column]
    schema = Schema.of(pd.DataFrame({"label": values}), ["label"])
    table = schema.frame(np.array(codes)[:, None])
    assert tuple(table["label"].cat.categories) == categories
    assert table["label"].isna().tolist() == [code == MISSING for code in codes]
    assert schema.codes(table)[:, 0].tolist() == codes
    back = ad.read_h5ad(write(ad.AnnData(np.ones((3, 1)), obs=table), tmp_path / "cells.h5ad")).obs
    assert tuple(back["label"].cat.categories) == categories
    assert schema.codes(back)[:, 0].tolist() == codes


def test_text_as_pandas_3_holds_it():
    with pd.option_context("future.infer_string", True):
        obs = pd.DataFrame({"label": ["b", None, "a"]})
        assert obs["label"].dtype == "str"
        schema = Schema.of(obs, ["label"])
        assert schema.labels[0].categories == ("a", "b")
        assert schema.codes(schema.frame(schema.codes(obs)))[:, 0].tolist() == [1, MISSING, 0]


def test_order_of_categories_is_kept():
    grade = pd.Categorical(["low", "high", "low"], categories=["low", "mid", "high"], ordered=True)
    schema = Schema.of(pd.DataFrame({"grade": grade}), ["grade"])
    assert schema.labels[0].categories == ("low", "high")
    assert schema.frame(np.array([[1]]))["grade"].cat.ordered
    assert not Schema.of(pd.DataFrame({"grade": ["a", "b"]}), ["grade"]).frame(np.array([[1]]))["grade"].cat.ordered


def test_several_labels_and_a_column_that_a_table_lacks():
    obs = pd.DataFrame({"type": ["B", "T", "T"], "donor": [1, 2, 2]}, index=["x", "x", "x"])
    schema = Schema.of(obs, ["donor", "type"])
    assert schema.codes(obs).tolist() == [[0, 0], [1, 1], [1, 1]]
    assert schema.codes(obs[["type"]]).tolist() == [[MISSING, 0], [MISSING, 1], [MISSING, 1]]
    assert (schema.combinations.tolist(), schema.cells.tolist()) == ([[0, 0], [1, 1]], [1, 2])


def test_one_label_may_be_named_without_a_list():
    assert Schema.of(pd.DataFrame({"type": ["B", "T"]}), "type").labels[0].name == "type"


def test_no_labels():
    obs = pd.DataFrame(index=["a", "b", "c"])
    schema = Schema.of(obs, [])
    assert (schema.sizes, schema.cells.tolist()) == ((), [3])
    assert schema.codes(obs).shape == (3, 0)
    assert encode_labels(obs, ()).shape == (3, 0)
    assert schema.draw(5, None, np.random.default_rng(0)).shape == (5, 0)
    assert schema.frame(np.zeros((5, 0), int)).shape == (5, 0)


def test_many_categories_are_coded_like_pandas_does():
    values = np.random.default_rng(0).integers(0, 3_000, 10_000).astype(str)
    codes = Schema.of(pd.DataFrame({"clone": values}), ["clone"]).codes(pd.DataFrame({"clone": values}))
    np.testing.assert_array_equal(codes[:, 0], pd.Categorical(values).codes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([None, None, None], ["every value is missing"]),
        ([np.nan] * 3, ["every value is missing"]),
        (pd.Categorical([None] * 3, categories=["a"]), ["every value is missing"]),
        ([0.25, 0.5, 0.25], ["0.25", "pandas.cut"]),
        ([1.0, np.inf, 1.0], ["inf", "pandas.cut"]),
        (pd.Series([1, "1", True], dtype=object), ["mixes bool, int, str", "astype(str)"]),
        (pd.Series([True, 1, 0], dtype=object), ["mixes bool, int"]),
        (pd.Categorical([1, "a", 1]), ["mixes int, str"]),
        (pd.Series([["a"], ["b"], ["a"]]), ["cannot be categories"]),
        ([str(i) for i in range(101)], ["101 different values in 101 cells"]),
    ],
)
def test_columns_that_cannot_be_labels(values, words):
    with refused("label 'donor'", *words):
        Schema.of(pd.DataFrame({"donor": values}), ["donor"])


def test_missing_label_column():
    with refused("label 'celltype'", "columns: 'cell_type'", "did you mean 'cell_type'?"):
        Schema.of(cells().obs, ["celltype"])
    with refused("label 'donor'", "columns: none"):
        Schema.of(pd.DataFrame(index=["a"]), ["donor"])
    with refused("'c11' and 28 more"):
        Schema.of(pd.DataFrame({f"c{i}": ["a"] for i in range(40)}), ["donor"])


def test_labels_named_twice():
    with refused("labels: ", "'type' is named twice"):
        Schema.of(pd.DataFrame({"type": ["a"]}), ["type", "type"])
    with refused("label 'type'", "2 obs columns"):
        Schema.of(pd.DataFrame([["a", "b"]], columns=["type", "type"]), ["type"])


# Asking for a category


@pytest.mark.parametrize(
    ("categories", "asked"),
    [
        ([1, 2], [2, 2.0, "2", np.int64(2), np.float32(2)]),
        ([1.0, 2.0], [2, 2.0, "2", np.int64(2), np.float32(2)]),
        (["1", "2"], [2, "2", np.str_("2"), np.int64(2)]),
        ([False, True], [True, np.bool_(True), "True"]),
        (["B", "T"], ["T", np.str_("T")]),
    ],
)
def test_a_category_is_found_by_itself_or_by_its_text(categories, asked):
    label = Schema.of(pd.DataFrame({"label": categories}), ["label"]).labels[0]
    assert [label.code(value) for value in asked] == [1] * len(asked)


@pytest.mark.parametrize("value", [None, np.nan, pd.NA, pd.NaT])
def test_what_is_missing_is_left_open(value):
    assert Schema.of(pd.DataFrame({"label": ["a"]}), ["label"]).labels[0].code(value) == MISSING


@pytest.mark.parametrize(
    ("categories", "asked", "words"),
    [
        (["B cell", "plasma cell"], "Plasma cel", ["'Plasma cel'", "known: 'B cell', 'plasma cell'", "did you mean 'plasma cell'?"]),
        (["B cell", "plasma cell"], "b cell", ["did you mean 'B cell'?"]),
        ([1, 2], True, ["'True'", "known: '1', '2'"]),
        ([False, True], 1, ["'1'", "known: 'False', 'True'"]),
        ([1, 2], 1.5, ["'1.5'"]),
        (["a", "b"], ["a"], ["known: 'a', 'b'"]),
        (["a", "b"], np.array(["a", "b"]), ["known: 'a', 'b'"]),
        (["a", "b"], "a\nb", [r"'a\nb'"]),
    ],
)
def test_unknown_category(categories, asked, words):
    schema = Schema.of(pd.DataFrame({"type": categories}), ["type"])
    with refused("label 'type': no category", *words, error=RequestError):
        schema.labels[0].code(asked)


def test_unknown_category_in_a_table():
    schema = Schema.of(pd.DataFrame({"type": ["B", "T"]}), ["type"])
    with refused("label 'type': no category 'NK'", error=RequestError):
        schema.codes(pd.DataFrame({"type": ["B", "NK"]}))
    assert schema.codes(pd.DataFrame({"type": pd.Categorical(["B", "T"], categories=["NK", "B", "T"])})).tolist() == [[0], [1]]


def test_nearest():
    assert nearest("Counts", ["raw", "counts"]) == "; did you mean 'counts'?"
    assert nearest("zzz", ["raw", "counts"]) == ""
    assert nearest("x", []) == ""


# Drawing

OBS = pd.DataFrame({"type": ["B"] * 50 + ["T"] * 30 + ["NK"] * 20, "donor": [1, 2] * 25 + [1] * 24 + [2] * 6 + [3] * 20})


def drawn(n, where, seed=0):
    schema = Schema.of(OBS, ["type", "donor"])
    return schema.frame(schema.draw(n, where, np.random.default_rng(seed)))


def agree(sample, population):
    """Chi-square test of the joint frequencies of all labels."""
    columns = list(population.columns)
    expected = population.value_counts()
    observed = sample.astype(object).value_counts().reindex(expected.index, fill_value=0)
    assert set(map(tuple, sample.to_numpy())) <= set(map(tuple, population[columns].to_numpy()))
    return chisquare(observed, expected / expected.sum() * len(sample)).pvalue > 1e-3


def test_draw_follows_the_joint_frequencies_of_training():
    assert agree(drawn(5_000, None), OBS)
    assert agree(drawn(5_000, {}), OBS)
    assert not agree(drawn(5_000, None), OBS.assign(type=OBS["type"].sample(frac=1, random_state=0).to_numpy()))


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"type": "T"}, OBS["type"] == "T"),
        ({"donor": 2}, OBS["donor"] == 2),
        ({"donor": "2"}, OBS["donor"] == 2),
        ({"type": ["B", "T"]}, OBS["type"] != "NK"),
        ({"type": ("B", "T"), "donor": {2, 3}}, (OBS["type"] != "NK") & (OBS["donor"] != 1)),
        ({"type": np.array(["B", "NK"])}, OBS["type"] != "T"),
        ({"type": pd.Series(["B", "NK"])}, OBS["type"] != "T"),
    ],
)
def test_draw_where_labels_are_fixed_the_others_follow_their_frequencies_given_these(where, rows):
    assert agree(drawn(4_000, where), OBS[rows])


def test_draw_of_what_fits_one_combination_only():
    assert drawn(7, {"type": "NK"})["donor"].tolist() == [3] * 7
    assert len(drawn(0, None)) == 0


def test_draw_of_what_training_never_saw_together_when_allowed():
    """NK cells are of donor 3 alone. A list that no cell fits follows the frequencies of its categories, each label alone."""
    schema, random = Schema.of(OBS, ["type", "donor"]), np.random.default_rng(0)
    codes = schema.draw(4_000, {"type": "NK", "donor": [1, 2]}, random, unseen=True)
    made = schema.frame(codes)
    assert set(made["type"]) == {"NK"}
    kept = OBS["donor"][(OBS["type"] == "NK") | OBS["donor"].isin([1, 2])]  # cells that have one of the two; donor 3 is drawn again
    among = OBS["donor"][OBS["donor"].isin([1, 2])].value_counts(normalize=True)
    expected = [(kept == donor).sum() + (kept == 3).sum() * among[donor] for donor in (1, 2)]
    observed = made["donor"].astype(int).value_counts()[[1, 2]]
    assert chisquare(observed, np.array(expected) / sum(expected) * 4_000).pvalue > 1e-3
    assert not schema.seen(codes).any()


def test_seen_is_what_training_had_together_and_what_is_missing_does_not_count():
    schema = Schema.of(OBS, ["type", "donor"])
    codes = schema.codes(pd.DataFrame({"type": ["NK", "NK", None, "NK", None], "donor": [3, 1, 1, None, None]}))
    assert schema.seen(codes).tolist() == [True, False, True, True, True]
    assert schema.seen(schema.codes(OBS)).all()
    assert Schema.of(OBS, []).seen(np.zeros((2, 0), int)).tolist() == [True, True]


def test_draw_repeats_with_its_seed():
    pd.testing.assert_frame_equal(drawn(100, None), drawn(100, None))
    assert not drawn(100, None).equals(drawn(100, None, seed=1))


def test_missing_labels_are_drawn_as_often_as_they_were_missing():
    schema = Schema.of(pd.DataFrame({"type": ["B", None, "B", "B"]}), ["type"])
    codes = schema.draw(8_000, None, np.random.default_rng(0))[:, 0]
    assert chisquare([np.sum(codes == MISSING), np.sum(codes == 0)], [2_000, 6_000]).pvalue > 1e-3
    assert (schema.draw(10, {"type": "B"}, np.random.default_rng(0)) == 0).all()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"typ": "B"}, ["where: 'typ'", "labels: 'type', 'donor'", "did you mean 'type'?"]),
        ({3: "B"}, ["where: 3", "labels: 'type', 'donor'"]),
        ({"type": "b"}, ["label 'type'", "no category 'b'", "did you mean 'B'?"]),
        ({"type": ["B", "Tt"]}, ["label 'type'", "no category 'Tt'"]),
        ({"type": "NK", "donor": 1}, ["where: no training cell has type='NK', donor=1", "unseen=True"]),
        ({"type": pd.Series(["NK", "NK"]), "donor": 1}, ["where: no training cell has"]),
        ({"type": None}, ["where: no training cell has type=None"]),
        ({"type": []}, ["where: 'type'", "empty list"]),
        ("type=B", ["where: got str", "dict"]),
        ([("type", "B")], ["where: got list", "dict"]),
    ],
)
def test_where_that_cannot_be_met(where, words):
    with refused(*words, error=RequestError):
        drawn(3, where)


def test_where_of_a_model_without_labels():
    with refused("where: 'type'", "without labels", error=RequestError):
        Schema.of(OBS, []).draw(3, {"type": "B"}, np.random.default_rng(0))


# JSON


@pytest.mark.parametrize("names", [[], ["type"], ["donor", "type"], ["type", "sure", "grade"]])
def test_a_schema_survives_json(names):
    obs = OBS.assign(sure=[True, False, None, True] * 25, grade=pd.Categorical([1, 2] * 50, categories=[2, 1], ordered=True))
    schema = Schema.of(obs, names)
    back = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert back.labels == schema.labels
    assert [[type(category) for category in label.categories] for label in back.labels] == [[type(c) for c in label.categories] for label in schema.labels]
    np.testing.assert_array_equal(back.combinations, schema.combinations)
    np.testing.assert_array_equal(back.cells, schema.cells)
    np.testing.assert_array_equal(back.draw(50, None, np.random.default_rng(0)), schema.draw(50, None, np.random.default_rng(0)))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, lambda counts: counts.toarray()])
def test_some_cells_of_a_file_are_those_of_the_same_choice_in_memory(form, ending, tmp_path):
    whole = cells()
    whole.X = form(sp.csr_matrix(whole.X))
    path = tmp_path / f"cells.{ending}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.write_h5ad(path) if ending == "h5ad" else whole.write_zarr(path)
    some, same = read(path, at_most=3, seed=5), read(whole, at_most=3, seed=5)
    assert some.n_obs == 3
    assert list(some.obs_names) == list(same.obs_names)
    assert (sp.csr_matrix(some.X) != sp.csr_matrix(same.X)).nnz == 0
    assert read(path, at_most=10**6).n_obs == whole.n_obs
