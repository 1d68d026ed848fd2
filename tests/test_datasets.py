from importlib import resources

import numpy as np
import pytest
import scipy.sparse as sp

import scld

FOLDER = resources.files("scld.datasets")


@pytest.fixture(scope="module")
def cells():
    return scld.datasets.pbmc()


def test_counts_are_raw_and_every_cell_and_gene_has_some(cells):
    assert isinstance(cells.X, sp.csr_matrix)
    assert cells.X.dtype == np.float32
    assert (cells.X.data == np.rint(cells.X.data)).all()
    assert cells.X.data.min() >= 1
    assert cells.X.sum(axis=1).min() > 0
    assert cells.X.sum(axis=0).min() > 0


def test_the_cells_pass_validation_unchanged(cells):
    assert (scld.data.count_matrix(scld.data.read(cells)) != cells.X).nnz == 0


def test_shape_and_names(cells):
    assert cells.shape == (2501, 2000)
    assert cells.obs_names.is_unique
    assert cells.var_names.is_unique


def test_rare_types_are_whole_and_common_ones_in_proportion(cells):
    size = cells.obs["cell_type"].value_counts()
    assert len(size) == 11
    rare = (size["platelet"], size["myeloid dendritic cell"], size["CD16+ monocyte"])
    assert rare == (15, 14, 47)
    original = {
        "memory CD4 T cell": 1486,
        "naive CD4 T cell": 1275,
        "naive B cell": 1002,
        "CD14+ monocyte": 799,
        "NK cell": 354,
        "activated B cell": 225,
    }
    share = [size[name] / n for name, n in original.items()]
    assert np.ptp(share) < 0.01


@pytest.mark.parametrize(
    ("gene", "here", "not_here"),
    [
        ("MS4A1", "naive B cell", "naive CD4 T cell"),
        ("CD79A", "activated B cell", "NK cell"),
        ("CD3E", "naive CD4 T cell", "naive B cell"),
        ("IL7R", "memory CD4 T cell", "CD14+ monocyte"),
        ("CD8B", "naive CD8 T cell", "naive CD4 T cell"),
        ("CD8A", "effector CD8 T cell", "memory CD4 T cell"),
        ("GNLY", "NK cell", "naive CD8 T cell"),
        ("NKG7", "effector CD8 T cell", "naive CD8 T cell"),
        ("LYZ", "CD14+ monocyte", "naive B cell"),
        ("CD14", "CD14+ monocyte", "CD16+ monocyte"),
        ("FCGR3A", "CD16+ monocyte", "CD14+ monocyte"),
        ("MS4A7", "CD16+ monocyte", "CD14+ monocyte"),
        ("CST3", "myeloid dendritic cell", "memory CD4 T cell"),
    ],
)
def test_a_marker_takes_three_times_the_share_of_counts_in_its_own_type(
    cells, gene, here, not_here
):
    def share(cell_type):
        counts = cells[cells.obs["cell_type"] == cell_type].X
        return counts[:, cells.var_names.get_loc(gene)].sum() / counts.sum()

    assert share(here) > 3 * share(not_here)


def test_the_known_markers_that_were_measured_are_kept(cells):
    markers = {"CD3E", "CD3D", "CD4", "CCR7", "S100A8", "CST3", "CD74", "KLRD1", "GZMB"}
    assert markers | {"MALAT1", "HLA-DRA"} <= set(cells.var_names)


def test_the_file_is_small_enough_for_a_wheel_with_its_source_and_licence_beside_it():
    assert len((FOLDER / "pbmc.h5ad").read_bytes()) < 3_000_000
    assert "GSE158013" in (FOLDER / "README.md").read_text()
    assert "Apache License" in (FOLDER / "LICENSE.matilda_sc").read_text()


def test_each_call_gives_its_own_copy(cells):
    other = scld.datasets.pbmc()
    other.X.data[:] = 0
    assert cells.X.data.min() >= 1
