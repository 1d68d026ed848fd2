"""Flaws planted in real blood cells: each is found by its metric, and its gene and type are named.

The cells that it is planted in are a third split of the same blood: without it, nothing is found.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from planted import LABEL, halved, identity_of, leaked, overdispersed, three_sets

import scld
from scld.evaluation import interpretation
from scld.evaluation.cells import Cells, Reference
from scld.evaluation.comparison import Comparison
from scld.evaluation.protocol import comparison_scores
from scld.evaluation.registry import BY_NAME
from scld.evaluation.subsets import common_sizes, sample_rows, split_halves

METRICS = (
    *("type_means_off", "identity_level", "identity_range", "type_variance_ratio"),
    *("type_variance_off", "effect_slope", "effect_slope_t", "effect_correlation"),
    *("marker_inside", "marker_outside"),
)
MONOCYTE, B_CELL = "CD14+ monocyte", "naive B cell"
SPLITS = 5


@pytest.fixture(scope="module")
def sets():
    return three_sets()


@pytest.fixture(scope="module")
def types(sets):
    return sorted(sets[0].obs[LABEL].astype(str).unique())


@pytest.fixture(scope="module")
def score(sets, types):
    """Function of cells: metric, group -> its mean over splits, for them and for the baseline."""
    train, test = (cells_of(one, types) for one in sets[:2])
    reference = Reference.of(train)

    def scores(made):
        cells = cells_of(made, types)
        sizes = common_sizes([test.sizes(len(types)) // 2, cells.sizes(len(types))], 10_000)
        found = [compared(reference, test, cells, sizes, seed) for seed in range(SPLITS)]
        both = [{key: [one[side][key] for one in found] for key in found[0][0]} for side in (0, 1)]
        return tuple({key: np.mean(values) for key, values in side.items()} for side in both)

    return scores


def cells_of(adata, types):
    codes = np.searchsorted(types, adata.obs[LABEL].astype(str).to_numpy())
    return Cells.of_counts(sp.csr_matrix(adata.X), codes)


def compared(reference, test, cells, sizes, seed):
    """Scores of cells and of the baseline on one split: the protocol, without classifiers."""
    rng = np.random.default_rng(seed)
    first, second = split_halves(test.codes, sizes, rng)
    rows = sample_rows(cells.codes, sizes, rng)
    real, baseline = reference.view(test[first]), reference.view(test[second])
    return tuple(
        scores_of(Comparison(reference, real, one, seed))
        for one in (reference.view(cells[rows]), baseline)
    )


def scores_of(comparison):
    wanted = tuple(BY_NAME[name] for name in METRICS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scld.evaluation.protocol.METRICS", wanted)
        return {(name, group): value for group, name, value in comparison_scores(comparison)}


@pytest.fixture(scope="module")
def clean(sets, score):
    return score(sets[2])


def worst(sets, made):
    """The list of an evaluation, and its sentences; all cells are in it, whatever `max_cells`."""
    quick = {"controls": False, "replicates": 1, "max_cells": 100, "progress": False}
    report = scld.evaluate(sets[0], sets[1], made, LABEL, **quick)
    return report.worst_genes, interpretation.gene_warnings(report.type_genes, "synthetic")


def test_real_cells_are_near_the_ideal_and_at_the_baseline(clean):
    """Ratios and slopes near 1, shares off as by chance; whatever is not, the baseline shows."""
    for side in clean:
        assert side["type_means_off", "overall"] < 0.006
        for metric in ("type_variance_ratio", "marker_inside", "marker_outside"):
            assert side[metric, "overall"] == pytest.approx(1, abs=0.1), metric
        for metric in ("effect_slope", "effect_slope_t"):
            assert side[metric, "overall"] == pytest.approx(1, abs=0.2), metric
    own, baseline = clean
    for metric in METRICS:
        assert own[metric, "overall"] == pytest.approx(baseline[metric, "overall"], abs=0.1), metric


def test_clean_cells_have_no_worst_genes(sets):
    rows, texts = worst(sets, sets[2])
    assert len(rows) == 0
    assert "q95_real" in rows.columns
    assert texts == []


def test_a_halved_identity_gene_is_found(sets, score, clean, types):
    gene = identity_of(sets[0], MONOCYTE)[1]
    made = halved(sets[2], MONOCYTE, gene)
    own, baseline = score(made)
    group = types.index(MONOCYTE)
    lost = clean[0]["identity_level", group] - own["identity_level", group]
    assert lost == pytest.approx(0.1, abs=0.06)  # one of ten genes
    assert own["identity_level", group] < baseline["identity_level", group] - 0.08
    assert own["type_means_off", group] > baseline["type_means_off", group]
    rows, texts = worst(sets, made)
    named = set(zip(rows["gene"], rows["type"], rows["off"], strict=True))
    name = sets[0].var_names[gene]
    assert named == {(name, MONOCYTE, "level")}
    assert rows["ratio"].iloc[0] == pytest.approx(0.5, abs=0.1)
    assert len(texts) == 1
    assert texts[0].startswith(f"{name}, an identity gene of {MONOCYTE}, has")


def test_a_gene_that_varies_too_much_at_the_same_mean_is_found(sets, score, clean, types):
    gene = identity_of(sets[0], MONOCYTE)[2]
    made = overdispersed(sets[2], MONOCYTE, gene)
    own, baseline = score(made)
    group = types.index(MONOCYTE)
    assert own["identity_range", group] < baseline["identity_range", group]
    assert own["identity_range", group] < clean[0]["identity_range", group]
    assert own["type_variance_off", group] > baseline["type_variance_off", group]
    rows, texts = worst(sets, made)
    name = sets[0].var_names[gene]
    assert set(zip(rows["gene"], rows["type"], rows["off"], strict=True)) == {
        (name, MONOCYTE, "spread")
    }
    assert rows["variance_ratio"].iloc[0] > 2
    assert abs(rows["z"].iloc[0]) < 4
    assert f"{name}, an identity gene of {MONOCYTE}, varies more" in texts[0]


def test_markers_that_leak_are_found(sets, score, types):
    train = cells_of(sets[0], types)
    group, reference = types.index(B_CELL), Reference.of(train)
    markers = np.union1d(reference.markers[group], reference.identity_genes[group])
    made = leaked(sets[2], B_CELL, markers)
    own, baseline = score(made)
    assert own["marker_outside", group] > baseline["marker_outside", group] + 0.2
    assert own["effect_slope", group] < baseline["effect_slope", group] - 0.1
    rows, texts = worst(sets, made)
    leaks = rows[rows["off"] == "leak"]
    assert set(leaks["type"]) <= {B_CELL, "activated B cell"}  # what marks one marks the other
    assert B_CELL in set(leaks["type"])
    assert set(leaks["gene"]) <= set(sets[0].var_names[markers])
    assert any("leaks into other types" in text and B_CELL in text for text in texts)


def test_small_steps_of_a_leak_are_monotone(sets, score, types):
    group = types.index(B_CELL)
    markers = Reference.of(cells_of(sets[0], types)).markers[group]
    own = [score(leaked(sets[2], B_CELL, markers, share))[0] for share in (0.0, 0.1, 0.3)]
    outside = [one["marker_outside", group] for one in own]
    slopes = [one["effect_slope", group] for one in own]
    assert outside == sorted(outside)
    assert slopes == sorted(slopes, reverse=True)
