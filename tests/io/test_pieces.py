import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from toy import make_cells

import scld
from scld.errors import DataError, RequestError
from scld.io.pieces import Pieces
from scld.io.shards import ShardStore
from scld.io.write import write

CELLS = make_cells(90)


def silent(done, text):
    pass


def both(source, tmp_path, genes="same", layer=None):
    """The counts in memory, and as they come back from disk."""
    pieces = Pieces.of(source, layer, genes)
    return pieces, pieces.in_memory(), pieces.on_disk(tmp_path, silent)[:]


@pytest.fixture(params=["h5ad", "zarr", "in memory", "dense", "by columns", "shards"])
def source(request, tmp_path):
    """The same cells as each kind of source."""
    cells = CELLS.copy()
    if request.param == "in memory":
        return cells
    if request.param == "dense":
        cells.X = cells.X.toarray()
    if request.param == "by columns":
        cells.X = sp.csc_matrix(cells.X)
    path = tmp_path / f"cells.{'zarr' if request.param in ('zarr', 'shards') else 'h5ad'}"
    if request.param == "zarr":
        write([cells], path)
    elif request.param == "shards":
        store = ShardStore.begin(path, {"cells": 90, "shard_cells": 40, "seed": 0}, overwrite=False)
        store.finish([store.write(i, cells[slice(*store.span(i))]) for i in range(3)])
    else:
        cells.write_h5ad(path)
    return path


def test_every_kind_of_source_gives_its_counts(source, tmp_path, monkeypatch):
    monkeypatch.setattr("scld.io.pieces._BLOCK", 13)
    pieces, memory, disk = both(source, tmp_path)
    assert pieces.cells == 90
    assert pieces.stored in (CELLS.X.nnz, 90 * 30)
    for counts in (memory, disk):
        assert (counts != CELLS.X).nnz == 0
    assert list(pieces.obs(["cell_type"])["cell_type"]) == list(CELLS.obs["cell_type"])


def test_a_layer_is_taken_from_each_piece(tmp_path):
    cells = CELLS.copy()
    cells.layers["raw"] = cells.X.copy()
    cells.X = cells.X * 0.5
    cells.write_h5ad(tmp_path / "a.h5ad")
    _, memory, disk = both([cells, tmp_path / "a.h5ad"], tmp_path, layer="raw")
    for counts in (memory, disk):
        assert (counts != sp.vstack([CELLS.X, CELLS.X])).nnz == 0


def test_genes_in_any_order_are_aligned_by_name(tmp_path):
    order = np.random.default_rng(0).permutation(30)
    pieces, memory, disk = both([CELLS[:40], CELLS[40:, order].copy()], tmp_path)
    assert list(pieces.genes) == list(CELLS.var_names)
    for counts in (memory, disk):
        assert (counts != CELLS.X).nnz == 0


def test_genes_that_differ_are_counted_and_named():
    with pytest.raises(
        DataError, match=r"lacks 2 genes of source 1 \('gene_1', 'gene_7'\)"
    ) as caught:
        Pieces.of([CELLS, CELLS[:, [i for i in range(30) if i not in (1, 7)]].copy()], None, "same")
    assert "takes the 28 shared" in str(caught.value)
    with pytest.raises(DataError, match=r"has 1 genes that source 1 lacks \('gene_29'\)"):
        Pieces.of([CELLS[:, :29].copy(), CELLS], None, "same")


def test_the_intersection_has_the_order_of_the_first_piece(tmp_path):
    first, second = CELLS[:40, ::-1].copy(), CELLS[40:, 5:].copy()
    pieces, memory, disk = both([first, second], tmp_path, "intersection")
    assert list(pieces.genes) == [f"gene_{i}" for i in range(29, 4, -1)]
    for counts in (memory, disk):
        assert (counts != CELLS[:, list(pieces.genes)].X).nnz == 0


def test_a_cell_without_counts_in_the_shared_genes_is_refused():
    other = CELLS[:, 5:].copy()
    lonely = CELLS.copy()
    counts = lonely.X.toarray()
    counts[3, 5:] = 0
    lonely.X = sp.csr_matrix(counts)
    with pytest.raises(DataError, match="1 cells have no counts in the 25 genes that all"):
        Pieces.of([lonely, other], None, "intersection").in_memory()


def named(prefix):
    cells = CELLS.copy()
    cells.var_names = [f"{prefix}{i}" for i in range(30)]
    return cells


@pytest.mark.parametrize("genes", ["same", "intersection"])
def test_pieces_without_a_common_gene_are_refused(genes):
    with pytest.raises(DataError, match="no gene in common"):
        Pieces.of([named("ENSG"), named("symbol")], None, genes)


def test_a_label_that_a_piece_lacks_is_named_with_the_piece(tmp_path):
    path = tmp_path / "b.h5ad"
    other = CELLS.copy()
    del other.obs["donor"]
    other.write_h5ad(path)
    with pytest.raises(DataError, match=r"b\.h5ad: no obs column 'donor'"):
        Pieces.of([CELLS, path], None, "same").obs(["cell_type", "donor"])


def test_categories_of_different_types_are_refused():
    other = CELLS.copy()
    other.obs["donor"] = pd.Categorical(other.obs["donor"].astype(str))
    with pytest.raises(DataError, match=r"'donor': categories of different types \(integer in"):
        Pieces.of([CELLS, other], None, "same").obs(["donor"])


def test_a_piece_without_any_label_is_of_no_other_type():
    other = CELLS.copy()
    other.obs["cell_type"] = np.nan
    assert len(Pieces.of([CELLS, other], None, "same").obs(["cell_type"])) == 180


def test_an_error_in_the_counts_names_the_source():
    other = CELLS.copy()
    other.X = other.X * 0.5
    with pytest.raises(DataError, match=r"source 2: X: .*not integers"):
        Pieces.of([CELLS, other], None, "same").in_memory()


def test_a_label_that_names_two_columns_is_refused():
    other = CELLS.copy()
    other.obs = pd.concat([other.obs, other.obs[["donor"]]], axis=1)
    with pytest.raises(DataError, match="source 2: several columns are named 'donor'"):
        Pieces.of([CELLS, other], None, "same").obs(["donor"])


@pytest.mark.parametrize("source", [[], ()], ids=str)
def test_an_empty_list_is_refused(source):
    with pytest.raises(RequestError, match="empty list"):
        Pieces.of(source, None, "same")


@pytest.mark.parametrize("stream", [False, True])
def test_counts_that_cannot_be_used_are_found_in_any_block(tmp_path, stream, monkeypatch):
    monkeypatch.setattr("scld.io.pieces._BLOCK", 13)
    cells = CELLS.copy()
    cells.X[77] = cells.X[77] * 0.5
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(DataError, match=r"cells\.h5ad: X: .*not integers"):
        scld.Synthesizer().fit(tmp_path / "cells.h5ad", stream=stream, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["cells.h5ad"]


def test_text_columns_of_var_annotate_the_genes_and_numbers_do_not(tmp_path):
    cells = CELLS.copy()
    ids = [f"ENSG{i}" for i in range(cells.n_vars)]
    cells.var["id"] = ids
    cells.var["chromosome"] = pd.Categorical([None, *["X"] * (cells.n_vars - 1)])
    cells.var["mean"], cells.var["highly_variable"] = 1.5, True
    cells.var["gene"] = cells.var["a/b"] = cells.var[7] = "a name that is in use, or no name"
    cells.var["mixed"] = pd.Series([1, *ids[1:]], cells.var_names, dtype=object)
    other = CELLS[:, :5].copy()
    shuffled = cells[:, ::-1].copy()
    genes = Pieces.of([shuffled, other], None, "intersection").gene_annotation
    assert list(genes) == ["id", "chromosome"]
    assert list(genes.index) == list(CELLS.var_names[:5][::-1])
    assert genes["id"].tolist() == ids[:5][::-1]
    assert genes["chromosome"].tolist() == ["X"] * 4 + [""]
