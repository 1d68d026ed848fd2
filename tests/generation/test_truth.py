import numpy as np
import pandas as pd
import pytest

import scld
from scld.errors import DataError

TABLE = pd.DataFrame({"cell_type": ["B", "T", "NK"] * 100, "group": ["a", "b"] * 150})
EFFECT = scld.Effect({"gene_1": 2.0, "gene_3": -1.0}, where={"group": "a", "cell_type": "B"})


def sample(synth, table=TABLE, **keywords):
    options = {"seed": 1, "progress": False, "mean": True} | keywords
    return synth.sample(obs=table, **options)


@pytest.mark.parametrize("fixed", [False, True])
def test_the_parts_are_those_of_twins_with_and_without_effects(synth, fixed):
    usual = sample(synth)
    changed = sample(synth, effects=[EFFECT], fixed_depth=fixed)
    found = scld.truth(changed, "group", "a", "b")
    np.testing.assert_allclose(found["log2fc"], found["effect"] + found["composition"])
    np.testing.assert_allclose(
        found["composition"], scld.truth(usual, "group", "a", "b")["log2fc"], atol=1e-5
    )


def test_within_a_type_the_effect_is_the_one_designed(synth):
    cells = sample(synth, effects=[EFFECT])
    found = scld.truth(cells, "group", "a", "b", within={"cell_type": "B"})["effect"]
    expected = pd.Series(0.0, index=found.index)
    expected[["gene_1", "gene_3"]] = 2.0, -1.0
    expected["gene_4"] = np.nan  # never expressed
    np.testing.assert_allclose(found, expected, atol=1e-5)
    others = scld.truth(cells, "group", "a", "b", within={"cell_type": ["T", "NK"]})["effect"]
    np.testing.assert_allclose(others.drop("gene_4"), 0, atol=1e-6)


def test_other_cells_are_composition(synth):
    table = TABLE.assign(group=np.where(TABLE["cell_type"] == "B", "a", "b"))
    found = scld.truth(sample(synth, table), "group", "a", "b").drop("gene_4")
    np.testing.assert_allclose(found["effect"], 0, atol=1e-9)
    assert found["composition"].abs().max() > 0.5


def test_it_survives_a_file(synth, tmp_path):
    import anndata as ad

    cells = sample(synth, effects=[EFFECT])
    cells.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        scld.truth(back, "group", "a", "b"), scld.truth(cells, "group", "a", "b")
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("grup", "a", "b"), "no column 'grup'.*did you mean 'group'"),
        (("group", "a", "c"), "no cell has {'group': 'c'}; known: group: 'a', 'b'"),
    ],
)
def test_groups_that_are_not_there_are_one_clear_error(synth, arguments, match):
    with pytest.raises(DataError, match=match):
        scld.truth(sample(synth), *arguments)


def test_cells_without_expected_counts_are_one_clear_error(synth):
    with pytest.raises(DataError, match="generate the cells with mean=True"):
        scld.truth(sample(synth, mean=False), "group", "a", "b")


def test_after_joining_files_the_record_must_be_kept(synth):
    import anndata as ad

    parts = [sample(synth, some, effects=[EFFECT]) for some in (TABLE[:150], TABLE[150:])]
    with pytest.raises(DataError, match=r"uns: no record of scld.*uns_merge='same'"):
        scld.truth(ad.concat(parts, index_unique="-"), "group", "a", "b")


def test_renamed_groups_and_selected_genes_have_the_same_truth(synth):
    cells = sample(synth, effects=[EFFECT])
    expected = scld.truth(cells, "group", "a", "b")
    renamed = cells.copy()
    renamed.obs["group"] = renamed.obs["group"].astype(str).map({"a": "treated", "b": "control"})
    pd.testing.assert_frame_equal(scld.truth(renamed, "group", "treated", "control"), expected)
    some = cells[:, ["gene_1", "gene_2"]]
    pd.testing.assert_frame_equal(scld.truth(some, "group", "a", "b"), expected.loc[some.var_names])
    fixed = sample(synth, effects=[EFFECT], fixed_depth=True)[:, ["gene_1", "gene_2"]]
    with pytest.raises(DataError, match="2 of 30 genes; with fixed_depth=True all are needed"):
        scld.truth(fixed, "group", "a", "b")


def test_effects_that_add_up_are_taken_out_together(synth):
    both = [EFFECT, scld.Effect({"gene_1": 1.0}, where={"group": "a"})]
    with pytest.warns(UserWarning, match="add up"):
        cells = sample(synth, effects=both)
    found = scld.truth(cells, "group", "a", "b", within={"cell_type": "B"})["effect"]
    np.testing.assert_allclose(found[["gene_1", "gene_3"]], [3, -1], atol=1e-5)
    assert set(cells.obs["in_effects"]) == {"", "1, 2", "2"}


@pytest.mark.parametrize("within", ["cell_type", ["cell_type"]])
def test_within_is_a_dict(synth, within):
    with pytest.raises(DataError, match=r"within: got .* pass a dict"):
        scld.truth(sample(synth), "group", "a", "b", within=within)
    with pytest.raises(DataError, match="adata: got str; pass an AnnData"):
        scld.truth("cells.h5ad", "group", "a", "b")
