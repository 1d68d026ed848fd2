import shutil

import pytest
from toy import make_cells

import scld
from scld.describe import _settings, as_text, describe, label_and_layer
from scld.errors import CheckpointError, DataError


def test_a_model_is_described(saved, synth):
    about = describe(saved)
    assert about["combinations"] == {"seen": 6, "possible": 6}
    assert about["genes_unseen"] == 1
    assert about["post_guidance"] is True
    assert about["bytes"] > 1000
    assert about["training"]["denoiser"]["steps"] == synth.summary["denoiser"]["steps"]
    text = as_text(about)
    assert f"scld {scld.__version__}, settings 'own', seed 0, with post-guidance" in text
    assert "donor: 0 (60), 1 (60)" in text


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_a_file_of_cells_is_described(tmp_path, ending):
    cells = make_cells()
    cells.layers["counts"] = cells.X.copy()
    cells.layers["scaled"] = cells.X * 0.5
    cells.X = cells.X * 0.25
    cells.obs["barcode"] = [f"c{i}" for i in range(120)]
    cells.obs["share"] = cells.obs["donor"] / 3
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(object).where(cells.obs["donor"] == 0)
    path = tmp_path / f"cells{ending}"
    (cells.write_h5ad if ending == ".h5ad" else cells.write_zarr)(path)
    about = describe(path)
    assert (about["cells"], about["genes"]) == (120, 30)
    counts = {name: matrix["counts"] for name, matrix in about["matrices"].items()}
    assert counts == {"X": False, "counts": True, "scaled": False}
    assert "not integers" in about["matrices"]["X"]["reason"]
    expected = {"categories": 3, "smallest": 20, "missing": 60}
    assert about["labels"]["cell_type"] == expected
    assert set(about["labels"]) == {"cell_type", "donor", "treated"}
    assert about["fit"]["fits"]
    text = as_text(about)
    for words in ("120 cells, 30 genes", "layer 'counts': raw counts", "a fit takes about"):
        assert words in text
    assert list(describe(path, "counts")["matrices"]) == ["counts"]


def test_a_transposed_file_is_recognised(tmp_path):
    make_cells().T.copy().write_h5ad(tmp_path / "cells.h5ad")
    about = describe(tmp_path / "cells.h5ad")
    assert (about["labels"], about["labels_in_var"]) == ({}, ["cell_type", "donor", "treated"])
    assert "var has 'cell_type', 'donor', 'treated': if the matrix is genes x" in as_text(about)
    assert label_and_layer(about) is None


def test_what_is_neither_model_nor_cells_is_explained(tmp_path, saved):
    (tmp_path / "cells.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"anndata.io.read_csv"):
        describe(tmp_path / "cells.csv")
    shutil.copytree(saved, tmp_path / "atlas.scld")
    with pytest.raises(DataError, match=r"did you mean 'atlas.scld'"):
        describe(tmp_path / "atlas")
    with pytest.raises(CheckpointError, match=r"did you mean 'atlas.scld'"):
        scld.load(tmp_path / "atlas")


@pytest.mark.parametrize("preset", ["default", "quick"])
def test_a_preset_is_named(preset):
    assert _settings(scld.Config.preset(preset)) == preset


def test_a_fit_that_is_too_large_is_said(tmp_path, monkeypatch):
    make_cells().write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr("scld.training.memory.memory_left", lambda: 1000)
    about = describe(tmp_path / "cells.h5ad")
    assert (about["fit"]["fits"], about["fit"]["streamed"]) == (False, True)
    assert "too little; use fewer cells or genes" in as_text(about)
