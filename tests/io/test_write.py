import itertools

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from toy import make_cells

from scld.errors import RequestError
from scld.io.write import check_output, write

ENDINGS = [".h5ad", ".zarr"]


@pytest.fixture
def whole():
    cells = make_cells(50, 9)
    cells.obs["donor"] = pd.Categorical(cells.obs["donor"])
    cells.uns["scld"] = {"seed": 1, "guidance": {"donor": 1.5}, "where": {}}
    return cells


def read(path):
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


def check_same(one, other):
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    assert one.X.dtype == other.X.dtype
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    assert one.uns["scld"] == other.uns["scld"]


def batch(cells, start, stop):
    """As slicing, but with all categories."""
    some = slice(start, stop)
    return ad.AnnData(cells.X[some], obs=cells.obs[some], var=cells.var, uns=dict(cells.uns))


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("sizes", [[50], [7, 20, 23], [1] * 50])
@pytest.mark.parametrize("ending", ENDINGS)
def test_batches_make_the_whole(whole, tmp_path, ending, sizes):
    path = tmp_path / f"cells{ending}"
    stops = np.cumsum([0, *sizes])
    count = write((batch(whole, start, stop) for start, stop in itertools.pairwise(stops)), path)
    assert count == 50
    assert names(tmp_path) == [path.name]
    check_same(read(path), whole)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_category_that_only_one_batch_has_is_kept_by_all(whole, tmp_path, ending):
    order = np.argsort(whole.obs["cell_type"].cat.codes, kind="stable")
    cells, path = whole[order].copy(), tmp_path / f"cells{ending}"
    write([batch(cells, 0, 20), batch(cells, 20, 50)], path)
    expected = list(whole.obs["cell_type"].cat.categories)
    assert list(read(path).obs["cell_type"].cat.categories) == expected


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interruption_leaves_what_was_there(whole, tmp_path, ending, before):
    path = tmp_path / f"cells{ending}"

    def batches():
        yield batch(whole, 0, 20)
        raise KeyboardInterrupt

    if before:
        write([batch(whole, 0, 5)], path)
    with pytest.raises(KeyboardInterrupt):
        write(batches(), path, overwrite=True)
    assert names(tmp_path) == [path.name] * before
    if before:
        check_same(read(path), batch(whole, 0, 5))


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_output_is_replaced_only_when_told(whole, tmp_path, ending):
    path = tmp_path / f"cells{ending}"
    write([whole], path)
    with pytest.raises(RequestError, match=r"exists already.*--overwrite"):
        write([batch(whole, 0, 5)], path)
    assert read(path).n_obs == 50
    write([batch(whole, 0, 5)], path, overwrite=True)
    assert read(path).n_obs == 5
    assert names(tmp_path) == [path.name]


def test_a_folder_that_is_no_store_is_never_replaced(whole, tmp_path):
    for name in ("mine.zarr", "mine.h5ad"):
        path = tmp_path / name
        path.mkdir()
        (path / "thesis.txt").write_text("chapter 1")
        with pytest.raises(RequestError, match="not replaced"):
            write([whole], path, overwrite=True)
        assert (path / "thesis.txt").read_text() == "chapter 1"


@pytest.mark.parametrize("name", ["cells.csv", "cells", "cells.h5ad.gz"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(RequestError, match=r"allowed are \.h5ad and \.zarr"):
        check_output(tmp_path / name, overwrite=False)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"folder '.*nowhere' does not exist; make it first"):
        check_output(tmp_path / "nowhere" / "cells.h5ad", overwrite=False)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_row_pointers_run_through_all_batches(tmp_path, ending):
    cells = make_cells(300, 40)
    batches = (batch(cells, start, start + 64) for start in range(0, 300, 64))
    write(batches, tmp_path / f"cells{ending}")
    matrix = read(tmp_path / f"cells{ending}").X
    matrix.check_format(full_check=True)
    assert matrix.nnz == cells.X.nnz


def test_a_disk_that_is_nearly_full_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    """HDF5 crashes the process if it is full."""
    usage = type("Usage", (), {"free": 17 * 2**20})
    monkeypatch.setattr("scld.io.write.shutil.disk_usage", lambda path: usage)
    write([make_cells(50)], tmp_path / "few.h5ad")
    usage.free = 15 * 2**20
    with pytest.raises(RequestError, match=r"more.h5ad: 16 MB left on the disk of the output"):
        write([make_cells(50)], tmp_path / "more.h5ad")
    assert [file.name for file in tmp_path.iterdir()] == ["few.h5ad"]
