"""Training and test cells: every cell on one side, by the share asked for."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from toy import make_cells

import scld
from scld.io.read import layer_names
from scld.io.write import write_whole


def labelled(values):
    obs = pd.DataFrame({"type": values}, index=[f"cell {i}" for i in range(len(values))])
    counts = sp.csr_matrix(np.arange(1, len(values) + 1, dtype=np.float32)[:, None])
    return ad.AnnData(counts, obs=obs)


@pytest.mark.parametrize("missing", [0, 20], ids=["no label is missing", "labels are missing"])
def test_categories_and_cells_without_the_label_are_split_alike(missing):
    values = ["B"] * 50 + ["T"] * 30 + [None] * missing
    adata = labelled(values)
    train, test = scld.split(adata, "type", test=0.3, seed=1)
    sizes = test.obs["type"].value_counts(dropna=False).to_dict()
    known = {"B": 15, "T": 9} | ({None: 6} if missing else {})
    assert {None if pd.isna(name) else name: n for name, n in sizes.items()} == known
    assert sorted([*train.obs_names, *test.obs_names]) == sorted(adata.obs_names)
    for part in (train, test):
        rows = adata.obs_names.get_indexer(part.obs_names)
        np.testing.assert_array_equal(part.X.toarray(), adata.X[rows].toarray())


def test_the_parts_of_a_split_are_copies():
    adata = labelled(["B"] * 10)
    train, _ = scld.split(adata, "type")
    assert not train.is_view
    train.X[:] = 0
    assert adata.X.min() == 1


@pytest.fixture
def donors():
    """100 cells of each of eight donors; the last type is of the first donor only."""
    cells = make_cells(800)
    cells.obs["who"] = np.arange(800) % 8
    cells.obs["type"] = np.where(cells.obs["who"] == 0, "rare", cells.obs["cell_type"].astype(str))
    return cells


@pytest.mark.parametrize(("share", "number"), [(0.01, 1), (0.3, 2), (0.5, 4), (0.99, 7)])
def test_whole_donors_go_to_one_side(donors, share, number):
    train, test = scld.split(donors, "cell_type", by="who", test=share, seed=3)
    of_train, of_test = set(train.obs["who"]), set(test.obs["who"])
    assert len(of_test) == number
    assert not of_train & of_test
    assert of_train | of_test == set(range(8))
    assert len(train) + len(test) == 800


def test_a_type_that_one_side_loses_is_named(donors):
    with pytest.warns(UserWarning, match=r"split: no (training|test) cell is of 'rare'"):
        scld.split(donors, "type", by="who")


def test_all_that_a_file_holds_is_kept(donors, tmp_path):
    donors.obsm["X_umap"] = np.zeros((800, 2))
    donors.layers["log"] = donors.X.copy()
    donors.uns["colours"] = ["red"]
    for name in ("a.h5ad", "a.zarr"):
        write_whole(donors, tmp_path / name)
    for name in ("a.h5ad", "a.zarr"):
        train, test = scld.split(tmp_path / name, "cell_type", seed=1)
        expected, _ = scld.split(donors, "cell_type", seed=1)
        assert list(train.obs_names) == list(expected.obs_names)
        assert set(train.obsm) == {"X_umap"}
        assert layer_names(test) == ["log"]
        assert list(test.uns["colours"]) == ["red"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"test": 0}, "test: got 0; allowed is a share between 0 and 1"),
        ({"test": 1.5}, "test: got 1.5"),
        ({"by": "donr"}, "did you mean 'donor'"),
        ({"by": "one"}, "'one' has one category only"),
        ({"by": "gaps"}, "3 cells have no value of 'gaps'"),
    ],
)
def test_what_cannot_be_split_is_an_error(options, text):
    cells = make_cells()
    cells.obs["one"] = "same"
    cells.obs["gaps"] = pd.Series([None] * 3 + ["a", "b"] * 58 + ["a"], cells.obs_names)
    with pytest.raises(scld.DataError, match=text):
        scld.split(cells, "cell_type", **options)
