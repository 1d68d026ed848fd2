"""The protocol: comparable sets, a fair baseline, and metrics that respond to what is wrong."""

from __future__ import annotations

from itertools import pairwise

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from simulated import NO_CONTROLS, QUICK, TYPES, mixed, population, rebuilt, with_counts
from threadpoolctl import threadpool_limits

import scld
from scld.evaluation.controls import bootstrap, poisson
from scld.evaluation.registry import METRICS
from scld.evaluation.subsets import common_sizes, sample_rows, split_halves


def test_halves_are_disjoint_and_of_the_given_composition():
    codes = np.repeat([0, 1, 2], [10, 20, 31])
    sizes = {0: 5, 2: 7}
    first, second = split_halves(codes, sizes, np.random.default_rng(0))
    assert not set(first) & set(second)
    for rows in (first, second, sample_rows(codes, sizes, np.random.default_rng(1))):
        assert dict(zip(*np.unique(codes[rows], return_counts=True), strict=True)) == sizes


def test_common_sizes_are_what_every_dataset_has():
    assert common_sizes([np.array([5, 9, 0]), np.array([7, 4, 3])], 100) == {0: 5, 1: 4}
    assert common_sizes([np.array([1000, 100])], 110) == {0: 100, 1: 10}


def test_real_cells_score_like_the_baseline_in_every_metric(report):
    """147 cells from the source of the test cells: no metric is far off, nearly all are at it."""
    table = report.table
    rows = table[(table["dataset"] == "other real") & (table["group"] == "overall")]
    position = rows["position"].dropna()
    assert len(position) > 20
    assert position.max() < 0.4
    assert position.median() < 0.05


def test_the_baseline_is_at_chance(report):
    assert report.value("baseline", "c2st") == pytest.approx(0.5, abs=0.08)
    assert report.value("baseline", "nearer_training") == pytest.approx(0.5, abs=0.08)


def test_cells_without_noise_are_detected(report):
    """They score well in precision; the two-sample test, gene variances and recall detect them."""
    assert report.value("noise-free", "precision") > 0.9
    assert report.value("noise-free", "c2st") > 0.95
    variance = report.value("baseline", "gene_variance")
    assert report.value("noise-free", "gene_variance") > 2 * variance
    assert report.value("noise-free", "recall") < 0.5 * report.value("baseline", "recall")


def test_shuffled_genes_are_detected(report):
    """Metrics of single genes and train-on-synthetic do not detect them; correlations do."""
    zeros, correlation = (report.value("baseline", m) for m in ("gene_zeros", "correlation"))
    assert report.value("shuffled", "gene_zeros") < 1.5 * zeros
    assert report.value("shuffled", "tstr_f1") > report.value("baseline", "tstr_f1") - 0.05
    assert abs(report.value("shuffled", "correlation")) < 0.3 * correlation
    assert report.value("shuffled", "c2st") > report.value("baseline", "c2st") + 0.15


def test_copies_are_detected(report):
    """They are real cells in quality; every privacy metric detects them."""
    assert report.value("copies", "exact_copies") == 1
    assert report.value("copies", "repeated_cells") > 0.2
    assert report.value("copies", "nearer_training") > 0.95
    membership = report.value("other real", "membership_auc")
    assert report.value("copies", "membership_auc") > membership + 0.05
    assert report.value("copies", "gene_mean") < 1.5 * report.value("baseline", "gene_mean")
    assert report.value("other real", "exact_copies") == 0


def falling(values):
    return all(a > b for a, b in pairwise(values))


def graded(train, test, corrupted):
    """A function from a metric to its values at growing shares of corruption."""
    found = scld.evaluate(train, test, corrupted, **NO_CONTROLS)
    return lambda metric, group="overall": [found.value(name, metric, group) for name in corrupted]


def test_more_poisson_cells_score_worse(train, test, fresh):
    wrong = rebuilt(train, poisson)
    score = graded(train, test, {f"{s:.0%}": mixed(fresh, wrong, s) for s in (0, 0.4, 0.8)})
    for metric in ("c2st", "c2st_boosting", "gene_variance"):
        assert falling(score(metric)[::-1]), metric
    for metric in ("mmd2", "energy_distance", "density", "detected_ks", "library_ks"):
        assert score(metric)[0] < score(metric)[-1], metric  # 147 cells: not at every step
    for metric in ("recall", "correlation"):
        assert falling(score(metric)), metric
    assert score("ilisi")[0] > score("ilisi")[-1]


def test_more_swapped_labels_score_worse(train, test, fresh):
    def swapped(share):
        copy, rng = fresh.copy(), np.random.default_rng(0)
        rows = rng.random(copy.n_obs) < share
        labels = copy.obs["cell_type"][rows].to_numpy()
        copy.obs.loc[rows, "cell_type"] = rng.permutation(labels)
        return copy

    score = graded(train, test, {f"{share:.0%}": swapped(share) for share in (0, 0.4, 0.9)})
    for metric in ("label_accuracy", "effect_slope", "tstr_f1"):
        assert falling(score(metric)), metric
    assert falling(score("w2", "T cell")[::-1])  # within a type, cells of another are distant
    assert max(score("c2st")) < 0.62  # without labels nothing is wrong: the reason for groups


def test_thinner_counts_score_worse(train, test, fresh):
    def thinned(share):
        copy, rng = fresh.copy(), np.random.default_rng(0)
        copy.X = copy.X.copy()
        copy.X.data = rng.binomial(copy.X.data.astype(int), 1 - share).astype(np.float32)
        copy.X.eliminate_zeros()
        return copy

    score = graded(train, test, {f"{share:.0%}": thinned(share) for share in (0, 0.3, 0.7)})
    metrics = ("library_ks", "detected_ks", "gene_zeros", "gene_mean", "detection_gap", "c2st")
    for metric in (*metrics, "w1", "w2"):
        assert falling(score(metric)[::-1]), metric


def test_more_training_cells_score_worse(train, test, fresh):
    score = graded(train, test, {f"{s:.0%}": mixed(fresh, train, s) for s in (0, 0.4, 0.9)})
    for metric in ("exact_copies", "nearer_training", "membership_auc"):
        assert falling(score(metric)[::-1]), metric


def test_same_seed_same_values(train, test, fresh):
    small = {**NO_CONTROLS, "max_cells": 60}
    first, second = (scld.evaluate(train, test, fresh, **small).table for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    other = scld.evaluate(train, test, fresh, **small, seed=5).table
    assert not np.allclose(first["value"], other["value"])


def test_any_number_of_threads_gives_the_same_values_but_for_rounding(train, test, fresh):
    small, tables = {**NO_CONTROLS, "max_cells": 60, "replicates": 1}, []
    for threads in (1, 2):
        with threadpool_limits(threads):
            report = scld.evaluate(train, test, fresh, **small)
        tables.append(report.table.set_index(["dataset", "group", "metric"])["value"])
    np.testing.assert_allclose(*tables, rtol=1e-4)


def test_every_metric_of_the_registry_is_computed(report):
    scored = set(report.table["metric"][report.table["baseline"].notna()])
    assert scored == {metric.name for metric in METRICS} - {"donor_membership_auc"}
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_donors_held_out_give_a_metric():
    train = population(400, 1, donors=["d1", "d2", "d3"])
    held_out = population(400, 2, donors=["d4", "d5"])
    copies = rebuilt(train, bootstrap)
    found = scld.evaluate(train, held_out, copies, donor="donor", **NO_CONTROLS)
    assert found.value("synthetic", "donor_membership_auc") == 1
    assert found.value("baseline", "donor_membership_auc") == 0.5


def test_a_bad_type_is_detected_by_type(train, test, fresh):
    wrong = rebuilt(train, poisson)
    parts = [fresh[fresh.obs["cell_type"] != "T cell"], wrong[wrong.obs["cell_type"] == "T cell"]]
    one_wrong = ad.concat(parts, index_unique="-")
    found = scld.evaluate(train, test, one_wrong, **{**NO_CONTROLS, "max_cells": 300})
    assert found.value("synthetic", "c2st", "T cell") > 0.9
    others = [found.value("synthetic", "c2st", t) for t in ("B cell", "monocyte")]
    assert max(others) < 0.7
    from scld.evaluation import interpretation

    worst = interpretation.worst_types(found.table, "synthetic")
    assert worst.iloc[0]["group"] == "T cell"


def test_a_type_that_only_some_datasets_lack_keeps_its_code(train, test, fresh):
    """The last type is missing in the training sample: types keep their order."""
    rare = train.copy()
    rare.obs["cell_type"] = rare.obs["cell_type"].astype(str)
    rare.obs.iloc[0, 0] = "zz rare"
    small = {**NO_CONTROLS, "max_cells": 20}  # 200 of the 600 training cells are used
    found = scld.evaluate(rare, test, fresh, **small, seed=1)
    assert found.types[-1] == "zz rare"
    assert np.isfinite(found.value("synthetic", "w2"))


@pytest.mark.parametrize("replicates", [1, 2])
def test_spread_is_that_of_the_replicates(train, test, fresh, replicates):
    small = {**NO_CONTROLS, "max_cells": 60, "replicates": replicates}
    table = scld.evaluate(train, test, fresh, **small).table
    row = table[(table["metric"] == "w2") & (table["group"] == "overall")].iloc[0]
    assert row["lower"] <= row["value"] <= row["upper"]
    assert np.isnan(row["sd"]) == (replicates == 1)


def test_quick_settings_have_no_two_sample_test_by_type(report):
    assert QUICK["max_cells"] == 3 * 49
    assert np.isnan(report.value("other real", "c2st", "T cell"))


# Several labels


@pytest.fixture(scope="module")
def conditions():
    """Real cells of three types under two conditions, where one gene responds in every type."""

    def cells(seed):
        made = population(600, seed)
        treated = np.random.default_rng(seed).random(600) < 0.5
        dense = made.X.toarray()
        dense[treated, 5:15] += 6
        made = with_counts(made, dense)
        made.obs["condition"] = np.where(treated, "stim", "ctrl")
        return made

    return [cells(seed) for seed in (1, 2, 3)]


def test_combinations_and_each_label_are_scored(conditions):
    train, test, fresh = conditions
    wrong = fresh.copy()
    wrong.obs["condition"] = np.random.default_rng(0).permutation(wrong.obs["condition"])
    options = {**NO_CONTROLS, "label": ["cell_type", "condition"]}
    found = scld.evaluate(train, test, {"right": fresh, "wrong": wrong}, **options)
    assert found.types == sorted(f"{t} / {c}" for t in TYPES for c in ("ctrl", "stim"))
    for name, low, high in (("right", 0.9, 1), ("wrong", 0.35, 0.65)):
        assert found.value(name, "label_accuracy", "cell_type") > 0.8
        assert low <= found.value(name, "label_accuracy", "condition") <= high
        joint = found.value(name, "label_accuracy")
        assert joint <= found.value(name, "label_accuracy", "condition") + 0.02
        assert found.value(name, "tstr_f1", "cell_type") > 0.8
    rows = found.table[found.table["group"] == "condition"]
    assert set(rows["metric"]) == {"label_accuracy", "tstr_f1"}
    assert rows["baseline"].notna().all()


def test_one_label_in_a_list_is_that_label(train, test, fresh):
    one, same = (
        scld.evaluate(train, test, fresh, **{**NO_CONTROLS, "label": label}).table
        for label in ("cell_type", ["cell_type"])
    )
    pd.testing.assert_frame_equal(one, same)


@pytest.mark.parametrize("label", [["cell_type", "cell_type"], ["overall"], [3], [["cell_type"]]])
def test_labels_that_cannot_be_are_refused(train, test, fresh, label):
    with pytest.raises(scld.RequestError, match="label: got"):
        scld.evaluate(train, test, fresh, **{**NO_CONTROLS, "label": label})
