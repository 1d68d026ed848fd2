import contextlib
import os
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from toy import make_cells

from scld import Synthesizer
from scld.errors import DataError
from scld.io.counts import count_matrix
from scld.io.read import MissingLayerError, blocks_of, layer_names, read
from scld.io.write import write_whole

COUNTS = np.random.default_rng(0).poisson(1.0, (20, 7)) + np.eye(20, 7, dtype=int)
COUNTS[:, 0] += 1  # no empty cell
KINDS = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix}


def make(matrix=COUNTS, **more):
    types = [("B", "T", "NK")[i % 3] for i in range(matrix.shape[0])]
    obs = pd.DataFrame({"cell_type": types}, index=[f"cell{i}" for i in range(matrix.shape[0])])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(matrix.shape[1])])
    return ad.AnnData(matrix, obs=obs, var=var, **more)


def write(adata, path, zarr_format=2):
    if path.suffix == ".h5ad":
        adata.write_h5ad(path)
        return path
    with warnings.catch_warnings():  # some versions of anndata say whether they will shard
        warnings.simplefilter("ignore", UserWarning)
        ad.io.write_elem(zarr.open_group(path, mode="w", zarr_format=zarr_format), "/", adata)
    return path


@contextlib.contextmanager
def refused(*words, error=DataError):
    """The error is ours, one line, and holds all these words."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# The same matrix, whatever holds it


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("ending", "options"),
    [("h5ad", {}), ("zarr", {}), ("zarr", {"zarr_format": 3})],
    ids=["h5ad", "zarr 2", "zarr 3"],
)
def test_files(tmp_path, ending, options, kind, layer):
    matrix = KINDS[kind](COUNTS.astype("float32"))
    adata = make(matrix) if layer is None else make(matrix * 0.5, layers={"counts": matrix})
    back = read(write(adata, tmp_path / f"cells.{ending}", **options), layer)
    np.testing.assert_array_equal(count_matrix(back).toarray(), COUNTS)
    pd.testing.assert_frame_equal(back.obs, adata.obs, check_categorical=False, check_dtype=False)
    assert list(back.var_names) == list(adata.var_names)


class Somewhere:
    """A path of another library, such as a temporary file or py.path."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


@pytest.mark.parametrize("as_path", [str, Path, Somewhere])
def test_a_path_may_be_text_or_any_path_like_and_its_ending_in_capitals(tmp_path, as_path):
    path = write(make(), tmp_path / "cells.h5ad").rename(tmp_path / "CELLS.H5AD")
    assert isinstance(as_path(path), str | os.PathLike)
    np.testing.assert_array_equal(count_matrix(read(as_path(path))).toarray(), COUNTS)


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(make(), tmp_path / "cells.h5ad")
    assert read("~/cells.h5ad").shape == COUNTS.shape


@pytest.mark.parametrize("kind", KINDS)
def test_backed_cells_are_read_with_what_was_changed_in_memory(tmp_path, kind):
    layers = {"twice": KINDS[kind](2 * COUNTS)}
    path = write(make(KINDS[kind](COUNTS), layers=layers), tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(path, backed="r")
    backed.obs["donor"] = "d1"
    np.testing.assert_array_equal(count_matrix(read(backed)).toarray(), COUNTS)
    np.testing.assert_array_equal(count_matrix(read(backed, "twice")).toarray(), 2 * COUNTS)
    some = read(backed[3:9, ::2])
    np.testing.assert_array_equal(count_matrix(some).toarray(), COUNTS[3:9, ::2])
    assert "donor" in read(backed).obs


def test_a_view_gives_its_own_cells():
    view = make(sp.csr_matrix(COUNTS))[3:9, ::-1]
    np.testing.assert_array_equal(count_matrix(read(view)).toarray(), COUNTS[3:9, ::-1])


def test_a_dask_array():
    import dask.array as dask

    cells = make(dask.from_array(COUNTS, chunks=5))
    np.testing.assert_array_equal(count_matrix(read(cells)).toarray(), COUNTS)


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_a_file_is_the_same_sample_as_of_the_cells_in_memory(kind, ending, tmp_path):
    whole = make(KINDS[kind](COUNTS))
    path = write(whole, tmp_path / f"cells.{ending}")
    some, same = read(path, at_most=3, seed=5), read(whole, at_most=3, seed=5)
    assert some.n_obs == 3
    assert list(some.obs_names) == list(same.obs_names)
    assert (sp.csr_matrix(some.X) != sp.csr_matrix(same.X)).nnz == 0
    assert read(path, at_most=10**6).n_obs == whole.n_obs


# Layers


@pytest.mark.parametrize("in_file", [False, True])
def test_a_missing_layer_is_answered_with_the_nearest(tmp_path, in_file):
    adata = make(layers={"counts": COUNTS})
    source = write(adata, tmp_path / "cells.h5ad") if in_file else adata
    words = ("layer 'count'", "its layers: 'counts'", "did you mean 'counts'?")
    with refused(*words, error=MissingLayerError):
        read(source, "count")


def test_a_missing_layer_where_there_is_none():
    with refused("layer 'counts'", "its layers: none", error=MissingLayerError):
        read(make(), "counts")


@pytest.mark.parametrize("layer", [3, ["counts"], b"counts"])
def test_a_layer_is_named_as_text(tmp_path, layer):
    for source in (make(), write(make(), tmp_path / "cells.h5ad")):
        with refused("layer: got ", "name a layer, as text, or None for X"):
            read(source, layer)


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_file_without_a_matrix_names_its_layers(tmp_path, ending):
    adata = make(layers={"counts": COUNTS})
    del adata.X
    path = write(adata, tmp_path / f"cells.{ending}")
    with refused(f"cells.{ending}", "no 'X'", "layers here: 'counts'"):
        read(path)
    np.testing.assert_array_equal(count_matrix(read(path, "counts")).toarray(), COUNTS)


# What is not a file of cells


def test_a_missing_file_is_answered_with_the_nearest(tmp_path):
    write(make(), tmp_path / "atlas.h5ad")
    with refused("atlsa.h5ad", "no such file", "did you mean 'atlas.h5ad'?"):
        read(tmp_path / "atlsa.h5ad")
    with refused("no such file"):
        read(tmp_path / "no folder" / "atlas.h5ad")
    with refused("two lines.h5ad", "no such file"):
        read(tmp_path / "two\nlines.h5ad")


@pytest.mark.parametrize("name", ["cells.csv", "cells.h5", "cells"])
def test_another_ending(tmp_path, name):
    (tmp_path / name).write_text("gene,cell")
    with refused(name, ".h5ad"):
        read(tmp_path / name)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file(tmp_path, share):
    path = write(make(sp.csr_matrix(COUNTS)), tmp_path / "cells.h5ad")
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
    path = write(make(), tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        del file[part]
    with refused("cells.h5ad", f"no '{part}'"):
        read(path)


def test_parts_of_different_sizes(tmp_path):
    path = write(make(), tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        del file["X"]
        ad.io.write_elem(file, "X", COUNTS[:5])
    with refused("cells.h5ad", "cannot be read"):
        read(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("part", ["X", "obs", "var", "X/indices", "obs/cell_type"])
def test_a_store_that_lost_a_part(tmp_path, zarr_format, part):
    path = write(make(sp.csr_matrix(COUNTS)), tmp_path / "cells.zarr", zarr_format)
    shutil.rmtree(path / part)
    with refused("cells.zarr"):
        read(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_that_lost_its_counts_is_not_read_as_zeros(tmp_path, zarr_format):
    path = write(make(sp.csr_matrix(COUNTS)), tmp_path / "cells.zarr", zarr_format)
    files = [file for file in (path / "X/data").rglob("*") if file.is_file()]
    chunks = [file for file in files if not file.name.startswith(".z")]
    chunks = [file for file in chunks if file.name != "zarr.json"]
    assert chunks
    for chunk in chunks:
        chunk.unlink()
    with refused("cells.zarr", "chunks of the counts are lost"):
        read(path)


def sharded(path):
    """Several chunks to a shard, the last shard not full, as anndata soon writes by default."""
    write(make(sp.csr_matrix(COUNTS)), path, zarr_format=3)
    options = {"chunks": (10,), "shards": (40,)}
    counts = sp.csr_matrix(COUNTS.astype("float32"))
    ad.io.write_elem(zarr.open_group(path), "X", counts, dataset_kwargs=options)
    return path


def test_a_sharded_store(tmp_path):
    path = sharded(tmp_path / "cells.zarr")
    assert zarr.open_group(path)["X/data"].nchunks % 4 > 0
    np.testing.assert_array_equal(count_matrix(read(path)).toarray(), COUNTS)
    assert read(path, at_most=3).n_obs == 3


def test_a_sharded_store_that_lost_any_shard_is_not_read_as_zeros(tmp_path):
    shards = [file for file in (sharded(tmp_path / "0.zarr") / "X/data/c").rglob("*")]
    assert len(shards) > 2
    for i, shard in enumerate(shards):
        path = sharded(tmp_path / f"{i}.zarr")
        (path / shard.relative_to(tmp_path / "0.zarr")).unlink()
        with refused(f"{i}.zarr", "chunks of the counts are lost"):
            read(path)


@pytest.mark.parametrize("source", [None, COUNTS, pd.DataFrame(COUNTS), b"cells.h5ad", 3])
def test_another_source(source):
    with refused("source: ", type(source).__name__, ".h5ad"):
        read(source)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "cells.h5ad")
    with pytest.raises(DataError, match="neither a file nor a directory; copy it to a file first"):
        read(tmp_path / "cells.h5ad")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("raw.h5", "scanpy.read_10x_h5("),
        ("matrix.mtx.gz", "scanpy.read_10x_mtx("),
        ("a.loom", "anndata.io.read_loom("),
        ("a.csv", "anndata.io.read_csv("),
        ("a.csv.gz", "anndata.io.read_csv("),
        ("a.tsv", "anndata.io.read_text("),
        ("a.h5mu", "mudata.read_h5mu("),
        ("a.h5ad.gz", "gunzip"),
        ("a.rds", "zellkonverter::writeH5AD"),
    ],
)
def test_files_of_other_formats_name_the_function_that_reads_them(tmp_path, name, call):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="unknown ending") as caught:
        read(tmp_path / name)
    assert call in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_10x_names_the_function_that_reads_it(tmp_path):
    folder = tmp_path / "filtered_feature_bc_matrix"
    folder.mkdir()
    (folder / "matrix.mtx.gz").touch()
    with pytest.raises(DataError, match=r"scanpy\.read_10x_mtx") as caught:
        read(folder)
    assert str(folder) in str(caught.value)


class MuData:
    mod: ClassVar = {"rna": None, "adt": None}


def test_several_modalities_are_refused_with_one_of_them():
    with pytest.raises(DataError, match=r"mdata\['rna'\]"):
        read(MuData())


def test_raw_is_read_with_its_own_genes(tmp_path):
    cells = make_cells()
    counts = cells.X.copy()
    cells.raw = cells
    cells = cells[:, :5].copy()
    cells.X = cells.X * 0.5
    cells.write_h5ad(tmp_path / "a.h5ad")
    write_whole(cells, tmp_path / "a.zarr")
    for source in (cells, tmp_path / "a.h5ad", tmp_path / "a.zarr"):
        with pytest.raises(DataError, match=r"layers here: ('counts', )?'raw'"):
            count_matrix(read(source))
        raw = read(source, "raw")
        assert (count_matrix(raw) != counts).nnz == 0
        assert list(raw.var_names) == list(cells.raw.var_names)
        some = read(source, "raw", at_most=4, seed=1)
        rows = cells.obs_names.get_indexer(some.obs_names)
        assert (count_matrix(some) != counts[rows]).nnz == 0
        blocks = [count_matrix(block) for block in blocks_of(source, "raw", 7)]
        assert (sp.vstack(blocks) != counts).nnz == 0


def test_a_layer_called_raw_goes_before_raw(tmp_path):
    cells = make_cells()
    cells.raw = cells
    cells.layers["raw"] = cells.X * 2
    cells.write_h5ad(tmp_path / "a.h5ad")
    for source in (cells, tmp_path / "a.h5ad"):
        assert (read(source, "raw").X != cells.X * 2).nnz == 0


def test_a_label_in_var_may_be_of_a_transposed_matrix(tmp_path):
    cells = make_cells().T.copy()
    cells.write_h5ad(tmp_path / "a.h5ad")
    for source in (cells, tmp_path / "a.h5ad"):
        with pytest.raises(DataError, match=r"column of var, not of obs; .*adata\.T"):
            Synthesizer("cell_type").fit(source, progress=False)


def test_x_among_the_layers_is_no_layer():
    """As in anndata 0.13."""
    newer = SimpleNamespace(layers={None: "X", "counts": "counts"})
    assert layer_names(newer) == ["counts"]
