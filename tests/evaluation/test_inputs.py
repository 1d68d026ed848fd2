"""The inputs: what users pass, brought to the same genes and types, or refused in one line."""

from __future__ import annotations

import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from simulated import NO_CONTROLS, log_normalised, population, with_counts

import scld

SMALL = {**NO_CONTROLS, "max_cells": 60}


class PathOf(os.PathLike):
    """A path that is neither str nor pathlib.Path."""

    def __init__(self, path):
        self.path = str(path)

    def __fspath__(self):
        return self.path


def refused(error, train, test, synthetic, **options):
    """The message of the error: one line, and no chained traceback text in it."""
    with pytest.raises(error) as caught:
        scld.evaluate(train, test, synthetic, **{**SMALL, **options})
    message = str(caught.value)
    assert "\n" not in message
    return message


def only(adata, name):
    """Cells that are all called by one type."""
    copy = adata.copy()
    copy.obs["cell_type"] = name
    return copy


# --- arguments


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("seed", -1, "from 0"),
        ("seed", 1.5, "from 0"),
        ("seed", 2**40, "from 0"),
        ("max_cells", -5, "from 20"),
        ("max_cells", 2.5, "from 20"),
        ("replicates", 0, "from 1"),
        ("replicates", 1.5, "from 1"),
        ("genes", "all", "'same', 'intersection'"),
    ],
)
def test_an_argument_out_of_range_is_refused(train, test, fresh, option, value, allowed):
    message = refused(scld.RequestError, train, test, fresh, **{option: value})
    assert message.startswith(f"{option}: got {value!r}; allowed")
    assert allowed in message


@pytest.mark.parametrize("name", ["baseline", "overall", "real", "train", "poisson"])
def test_reserved_names_are_refused(train, test, fresh, name):
    message = refused(scld.RequestError, train, test, {name: fresh})
    assert f"the name {name!r} is reserved" in message


@pytest.mark.parametrize("name", [1, None, ("a", "b"), ""])
def test_names_that_are_no_text_are_refused(train, test, fresh, name):
    message = refused(scld.RequestError, train, test, {name: fresh})
    assert message.startswith(f"synthetic: got {name!r} as the name of a dataset")


def test_no_dataset_is_refused(train, test):
    assert "no dataset" in refused(scld.RequestError, train, test, {})


def test_unknown_names_are_refused_with_the_nearest(train, test, fresh):
    message = refused(scld.RequestError, train, test, {"ours": fresh}, log_normalised=["our"])
    assert "log_normalised: 'our' is not a synthetic dataset; datasets: 'ours'" in message
    assert "did you mean 'ours'?" in message
    costs = {"b": {"seconds": 1}}
    message = refused(scld.RequestError, train, test, {"a": fresh}, costs=costs)
    assert "costs: 'b' is not a synthetic dataset" in message


def test_a_cost_that_is_no_number_is_refused(train, test, fresh):
    costs = {"a": {"seconds": "long"}}
    message = refused(scld.RequestError, train, test, {"a": fresh}, costs=costs)
    assert "costs: 'a', 'seconds': got 'long'" in message


def test_any_path_is_read(train, test, fresh, tmp_path):
    paths = {}
    for name, cells in {"train": train, "test": test, "fresh": fresh}.items():
        paths[name] = tmp_path / f"{name}.h5ad"
        cells.copy().write_h5ad(paths[name])  # writing changes text columns
    of_paths = [PathOf(path) for path in paths.values()]
    first = scld.evaluate(*of_paths, **SMALL).table
    second = scld.evaluate(*map(str, paths.values()), **SMALL).table
    in_memory = scld.evaluate(train, test, fresh, **SMALL).table
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, in_memory)


# --- matrices


@pytest.mark.parametrize("place", ["train", "test", "synthetic"])
def test_no_matrix_is_refused(train, test, fresh, place):
    given = {"train": train, "test": test, "synthetic": fresh}
    given[place] = ad.AnnData(obs=given[place].obs, var=given[place].var)
    message = refused(scld.DataError, **given)
    assert message.startswith(f"{place}: X is None; pass raw counts")


@pytest.mark.parametrize("place", ["train", "test", "synthetic"])
@pytest.mark.parametrize("log_normalised", [False, True])
def test_text_is_refused(train, test, fresh, place, log_normalised):
    given = {"train": train, "test": test, "synthetic": fresh}
    text = given[place].X.toarray().astype(str)
    given[place] = ad.AnnData(text, obs=given[place].obs, var=given[place].var)
    message = refused(scld.DataError, **given, log_normalised=log_normalised)
    assert message.startswith(f"{place}: X holds <U")


def test_no_cells_are_refused(train, test, fresh):
    message = refused(scld.DataError, train, test, fresh[:0])
    assert "synthetic: holds 0 cells x 150 genes" in message


def test_fewer_than_fifty_cells_are_refused(train, test, fresh):
    message = refused(scld.DataError, train, test, fresh[:30])
    assert "synthetic: 30 cells that can be scored; at least 50" in message


def test_empty_synthetic_cells_are_left_out_and_fail_validity(train, test, fresh):
    dense = fresh.X.toarray()
    dense[:5] = 0
    found = scld.evaluate(train, test, with_counts(fresh, dense), **SMALL)
    assert any("5 cells without any count" in note for note in found.notes)
    assert found.value("synthetic", "no_empty_cell") == 0


def test_large_datasets_are_sampled_with_a_note(train, test, fresh):
    found = scld.evaluate(train, test, fresh, **{**SMALL, "max_cells": 40})
    assert any("train: 400 of 600 cells" in note for note in found.notes)
    assert any("synthetic: 400 cells" in note for note in found.notes)
    assert sum(found.sizes.values()) <= 40


# --- layers and log-normalised values


def test_log_normalised_cells_score_as_their_counts_without_count_metrics(train, test, fresh):
    of_counts = scld.evaluate(train, test, fresh, **SMALL)
    of_logs = scld.evaluate(train, test, log_normalised(fresh), **SMALL, log_normalised=True)
    w2 = of_counts.value("synthetic", "w2")
    assert of_logs.value("synthetic", "w2") == pytest.approx(w2, rel=1e-4)
    assert np.isnan(of_logs.value("synthetic", "library_ks"))
    assert of_counts.value("synthetic", "library_ks") > 0
    assert any("have no library size" in note for note in of_logs.notes)
    assert np.isnan(of_logs.value("synthetic", "integers"))


def test_log_normalised_copies_are_detected(train, test):
    given = {"logs": log_normalised(train)}
    found = scld.evaluate(train, test, given, log_normalised=["logs"], **SMALL)
    assert found.value("logs", "exact_copies") == 1


@pytest.mark.parametrize("target", [1e6, 100])
def test_another_normalisation_is_refused(train, test, fresh, target):
    given = log_normalised(fresh, target)
    message = refused(scld.DataError, train, test, given, log_normalised=True)
    assert "normalised otherwise" in message


def test_log_values_passed_as_counts_are_refused_with_advice(train, test, fresh):
    message = refused(scld.DataError, train, test, log_normalised(fresh))
    assert message.startswith("synthetic: ")
    assert message.endswith("pass log_normalised")


def test_transformed_real_cells_get_no_such_advice(train, test, fresh):
    message = refused(scld.DataError, log_normalised(train), test, fresh)
    assert message.startswith("train: ")
    assert "log_normalised" not in message


def test_the_layer_is_used_where_a_dataset_has_it_else_x_with_a_note(train, test, fresh):
    moved = []
    for cells in (train, test):
        copy = log_normalised(cells)
        copy.layers["counts"] = cells.X
        moved.append(copy)
    found = scld.evaluate(*moved, fresh, layer="counts", **SMALL)
    expected = scld.evaluate(train, test, fresh, **SMALL).value("synthetic", "w2")
    assert found.value("synthetic", "w2") == pytest.approx(expected)
    assert any("synthetic: has no layer 'counts', so X is used" in note for note in found.notes)
    message = refused(scld.DataError, moved[0], test, fresh, layer="counts")
    assert "test: layer 'counts': not in the AnnData" in message


# --- genes


def test_genes_that_differ_are_counted_and_shared_only_on_request(train, test, fresh):
    fewer = fresh[:, 10:].copy()
    message = refused(scld.DataError, train, test, fewer)
    assert "synthetic: lacks 10 of the 150 genes of train" in message
    assert "the 140 genes that all datasets share" in message
    found = scld.evaluate(train, test, fewer, genes="intersection", **SMALL)
    assert len(found.gene_names) == 140
    assert any("140 genes" in note for note in found.notes)


def test_disjoint_genes_are_refused_even_then(train, test, fresh):
    other = fresh.copy()
    other.var_names = [f"ENSG{i}" for i in range(other.n_vars)]
    message = refused(scld.DataError, train, test, other, genes="intersection")
    assert "no gene is shared" in message


def test_repeated_genes_are_refused(train, test, fresh):
    twice = fresh.copy()
    twice.var_names = ["g1", *twice.var_names[1:]]
    message = refused(scld.DataError, train, test, twice)
    assert message.startswith("synthetic: gene 'g1' occurs 2 times in var_names")


def test_another_gene_order_is_matched_and_fails_validity(train, test, fresh):
    turned, straight = (
        scld.evaluate(train, test, cells, **SMALL) for cells in (fresh[:, ::-1].copy(), fresh)
    )
    w2 = straight.value("synthetic", "w2")
    assert turned.value("synthetic", "w2") == pytest.approx(w2)
    assert turned.value("synthetic", "gene_order") == 0
    assert straight.value("synthetic", "gene_order") == 1


# --- labels and types


def test_a_missing_label_is_named(train, test, fresh):
    bare = fresh.copy()
    bare.obs = bare.obs.rename(columns={"cell_type": "celltype"})
    message = refused(scld.DataError, train, test, bare)
    assert message.startswith("synthetic: label 'cell_type': no such obs column")
    assert message.endswith("columns: 'celltype'; did you mean 'celltype'?")


@pytest.mark.parametrize("place", ["train", "test", "synthetic"])
def test_a_label_column_that_occurs_twice_is_refused(train, test, fresh, place):
    given = {"train": train, "test": test, "synthetic": fresh}
    copy = given[place].copy()
    copy.obs = pd.concat([copy.obs, copy.obs], axis=1)
    given[place] = copy
    message = refused(scld.DataError, **given)
    assert message.startswith(f"{place}: label 'cell_type': 2 obs columns have this name")


def test_a_cell_without_label_is_refused(train, test, fresh):
    gap = fresh.copy()
    gap.obs.iloc[3, 0] = None
    message = refused(scld.DataError, train, test, gap)
    assert "synthetic: label 'cell_type': missing for 1 of 600 cells (first: 'c3')" in message


def test_no_type_in_common_is_refused(train, test, fresh):
    both = train.copy()
    both.obs["cell_type"] = np.where(np.arange(600) < 300, "a", "b")
    message = refused(scld.DataError, both, only(test, "a"), only(fresh, "b"))
    assert "have 0 cells in common" in message
    assert "at least 20 of the same types" in message


@pytest.mark.parametrize("shared", [2, 8])
def test_few_cells_in_common_are_refused(train, test, fresh, shared):
    both, some = train.copy(), fresh.copy()
    both.obs["cell_type"] = np.where(np.arange(600) < 300, "a", "b")
    some.obs["cell_type"] = np.where(np.arange(600) < shared, "a", "b")
    message = refused(scld.DataError, both, only(test, "a"), some)
    assert f"have {shared} cells in common" in message


def test_one_type_leaves_out_what_compares_types(train, test, fresh):
    cells = [adata[adata.obs["cell_type"] == "B cell"] for adata in (train, test, fresh)]
    found = scld.evaluate(*cells, **NO_CONTROLS)
    assert any("One type only" in note for note in found.notes)
    assert np.isnan(found.value("synthetic", "label_accuracy"))
    baseline = found.value("baseline", "correlation")
    assert found.value("synthetic", "correlation") > 0.5 * baseline > 0


def test_without_a_label_there_are_overall_metrics_only(train, test, fresh):
    options = {"progress": False, "replicates": 1, "controls": False}
    found = scld.evaluate(train, test, fresh, **options)
    assert set(found.table["group"]) == {"overall"}


def test_a_type_that_one_dataset_lacks_is_left_out_for_all(train, test, fresh):
    without = fresh[fresh.obs["cell_type"] != "T cell"]
    found = scld.evaluate(train, test, {"all": fresh, "part": without}, **SMALL)
    assert any("part: no cells, or too few, of 'T cell'" in note for note in found.notes)
    assert np.isnan(found.value("all", "w2", "T cell"))
    assert found.value("part", "composition") == pytest.approx(1 / 3, abs=0.02)
    assert found.value("part", "every_label") == 0
    assert found.value("all", "every_label") == 1


def test_unknown_types_are_left_out_with_a_note(train, test, fresh):
    odd = fresh.copy()
    odd.obs["cell_type"] = odd.obs["cell_type"].replace("T cell", "t-cell")
    found = scld.evaluate(train, test, odd, **SMALL)
    assert any("'t-cell'" in note for note in found.notes)
    assert found.value("synthetic", "known_labels") == 0


# --- without test cells, and donors


def test_without_test_cells_memorisation_is_left_out(train, fresh):
    found = scld.evaluate(train, None, fresh, **SMALL)
    assert any("No test cells were given" in note for note in found.notes)
    assert np.isnan(found.value("synthetic", "nearer_training"))
    assert found.value("synthetic", "exact_copies") == 0
    assert found.value("baseline", "w2") > 0


def test_without_test_cells_copies_are_found_among_all_training_cells(train):
    found = scld.evaluate(train, None, train, **SMALL)
    assert found.value("synthetic", "exact_copies") == 1


def test_too_few_training_cells_to_split_are_refused(train, fresh):
    assert "no test cells" in refused(scld.DataError, train[:80], None, fresh)


def test_donors_on_both_sides_are_left_out_with_a_note():
    train, other = (population(300, seed, donors=["d1", "d2"]) for seed in (1, 2))
    found = scld.evaluate(train, other, population(300, 3), donor="donor", **SMALL)
    assert np.isnan(found.value("synthetic", "donor_membership_auc"))
    assert any("at least two donors" in note for note in found.notes)


def test_test_cells_that_are_training_cells_are_said_first(report, train, test, fresh):
    leaked = ad.concat([test[:500], train[:100]], index_unique="-")
    found = scld.evaluate(train, leaked, fresh, **NO_CONTROLS)
    assert found.notes[0].startswith("100 of 600 test cells are training cells too")
    assert not any("training cells too" in note for note in report.notes)


@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_a_sparse_matrix_that_points_outside_itself_is_refused_and_does_not_crash(
    train, test, fresh, part
):
    broken = fresh.copy()
    broken.X = sp.csr_matrix(broken.X)
    getattr(broken.X, part)[5] = 10**6
    assert "a damaged sparse matrix" in refused(scld.DataError, train, test, broken)


@pytest.mark.parametrize("kind", ["float16", ">f4"])
def test_number_types_that_scipy_does_not_know_are_read(train, test, fresh, kind):
    odd = fresh.copy()
    odd.X = sp.csr_matrix(odd.X)
    odd.X.data = odd.X.data.astype(kind)
    expected, found = (scld.evaluate(train, test, cells, **SMALL) for cells in (fresh, odd))
    pd.testing.assert_frame_equal(expected.table, found.table)
