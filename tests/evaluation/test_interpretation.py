"""The table in words: findings, warnings, and the worst genes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import NO_CONTROLS, QUICK, noise_free, with_counts

import scld
from scld.evaluation import interpretation
from scld.evaluation.registry import BY_NAME, METRICS


def test_warnings_and_findings_name_what_is_wrong(report):
    texts = interpretation.warnings(report.table, "copies")
    assert any("exact copies" in text for text in texts)
    found = interpretation.findings(report.table, "shuffled")
    words = {finding.metric.name: finding.word for finding in found}
    bad = ("large difference", interpretation.AS_CONTROL)
    assert words["correlation"] in bad
    assert interpretation.headline(report.table, "other real").count("%") >= 4


def test_findings_are_in_the_order_of_the_registry(report):
    names = [found.metric.name for found in interpretation.findings(report.table, "shuffled")]
    order = [metric.name for metric in METRICS]
    assert names == sorted(names, key=order.index)


NAN = float("nan")


@pytest.mark.parametrize(
    ("position", "interval", "worse", "expected"),
    [
        (-0.5, (-0.6, -0.4), False, "like real cells"),
        (0.05, (0.02, 0.08), True, "like real cells"),
        (0.05, (-0.1, 0.2), False, "cannot tell"),
        (0.4, (-0.1, 0.9), False, "cannot tell"),
        (0.09, (0.05, 0.13), True, "small difference"),
        (0.3, (0.1, 0.5), True, "moderate difference"),
        (0.99, (0.9, 1.1), True, "large difference"),
        (1.0, (0.9, 1.1), True, "like the worst negative control"),
        (NAN, (NAN, NAN), True, "worse than real cells, no scale"),
        (NAN, (NAN, NAN), False, "cannot tell"),
        (0.05, (NAN, NAN), False, "like real cells"),
        (0.6, (NAN, NAN), False, "large difference"),
    ],
)
def test_words_follow_the_interval(position, interval, worse, expected):
    assert interpretation.word(position, interval, worse) == expected
    assert expected in interpretation.WORDS


def alike(report, name):
    """The metrics by which a dataset is like real cells."""
    found = interpretation.findings(report.table, name)
    return {one.metric.name for one in found if one.word == interpretation.AS_BASELINE}


def test_fewer_cells_make_no_verdict_kinder(report, train, test):
    """Cells that are clearly wrong with many cells are not like real cells with few."""
    few = {**QUICK, "replicates": 2, "max_cells": 40}
    found = scld.evaluate(train, test, {"noise-free": noise_free(train)}, **few)
    assert "c2st" not in alike(found, "noise-free") | alike(report, "noise-free")
    assert len(alike(found, "noise-free")) <= len(alike(report, "noise-free")) + 1


def table_of(**metrics):
    """A table of one dataset: metric -> (value, sd, baseline, baseline_sd), and the controls."""
    rows = []
    for metric, (value, sd, baseline, baseline_sd) in metrics.items():
        row = BY_NAME[metric]
        ideal = baseline if np.isnan(row.ideal) else row.ideal
        common = {"group": "overall", "metric": metric, "better": row.better, "ideal": ideal}
        common |= {"category": row.category, "baseline": baseline, "baseline_sd": baseline_sd}
        rows.append({"dataset": "ours", "value": value, "sd": sd, **common})
        rows.append({"dataset": "baseline", "value": baseline, "sd": baseline_sd, **common})
        for control in ("poisson", "shuffle"):
            rows.append({"dataset": control, "value": baseline, "sd": NAN, **common})
    return pd.DataFrame(rows)


USUAL = {
    "c2st": (0.55, 0.01, 0.52, 0.01),
    "c2st_forest": (0.53, 0.01, 0.5, 0.01),
    "c2st_linear": (0.54, 0.01, 0.5, 0.01),
    "c2st_boosting": (0.55, 0.01, 0.5, 0.01),
    "label_accuracy": (0.9, 0.01, 0.9, 0.01),
    "exact_copies": (0.0, NAN, 0.0, NAN),
    "nearer_training": (0.5, 0.02, 0.5, 0.02),
}


@pytest.mark.parametrize(
    ("metric", "values", "text"),
    [
        ("c2st", (0.8, 0.02, 0.52, 0.02), "AUC of 0.80, where real cells get 0.52"),
        ("label_accuracy", (0.8, 0.01, 0.9, 0.01), "Some cells are not of the type"),
        ("label_accuracy", (0.98, 0.01, 0.9, 0.01), "more distinct than in real cells"),
        ("nearer_training", (0.7, 0.03, 0.5, 0.03), "part of the training set is memorised"),
        ("exact_copies", (0.3, NAN, 0.0, NAN), "30.0% of the cells are exact copies"),
    ],
)
def test_each_warning_needs_a_difference_beyond_chance(metric, values, text):
    assert interpretation.warnings(table_of(**USUAL), "ours") == []
    (warning,) = interpretation.warnings(table_of(**{**USUAL, metric: values}), "ours")
    assert text in warning
    if metric != "exact_copies":  # counted, not estimated
        value, _, baseline, _ = values
        unsure = table_of(**{**USUAL, metric: (value, 0.15, baseline, 0.15)})
        assert interpretation.warnings(unsure, "ours") == []


def test_cells_that_copy_none_can_be_as_near_so_nearness_alone_is_no_memorisation():
    table = table_of(**{**USUAL, "nearer_training": (0.7, 0.02, 0.5, 0.02)})
    poisson = (table["dataset"] == "poisson") & (table["metric"] == "nearer_training")
    table.loc[poisson, "value"] = 0.95
    assert interpretation.warnings(table, "ours") == []


def test_copies_are_named_first():
    worse = {"c2st": (0.8, 0.02, 0.52, 0.02), "exact_copies": (0.3, NAN, 0.0, NAN)}
    first, second = interpretation.warnings(table_of(**{**USUAL, **worse}), "ours")
    assert "copies" in first
    assert "AUC" in second
    steps = interpretation.next_steps(
        table_of(**{**USUAL, **worse}).assign(position=NAN, position_low=NAN, position_high=NAN),
        "ours",
    )
    assert steps[0].startswith("Do not share")


def test_worst_genes_finds_a_gene_that_is_never_detected(train, test, fresh):
    dense = fresh.X.toarray()
    gene = int(np.argmax((dense > 0)[:, 1:].mean(axis=0))) + 1
    dense[:, gene] = 0
    found = scld.evaluate(train, test, with_counts(fresh, dense), **NO_CONTROLS)
    worst = found.worst_genes
    assert set(worst["gene"]) == {f"g{gene}"}
    assert set(worst["off"]) == {"level"}


def pair(**changed):
    """One row of `Results.type_genes`: INS in beta cells, at its right level and spread."""
    row = {
        "dataset": "ours",
        "type": "beta",
        "gene": "INS",
        "identity": True,
        "identity_of": "beta",
        "off": "level",
        "mean_real": 900.0,
        "mean": 600.0,
        "ratio": 0.667,
        "z": -9.0,
        "outside_real": 2.0,
        "outside": 2.0,
        "outside_ratio": 1.0,
        "outside_z": 0.0,
        "variance_ratio": 1.0,
        "spread_z": 0.0,
    }
    return {**row, **changed}


def sentences(*rows):
    return interpretation.gene_warnings(pd.DataFrame(rows), "ours")


def test_sentences_name_gene_and_type_and_say_what_is_seen():
    (level,) = sentences(pair(), pair(gene="IAPP", z=-5.0))
    assert level.startswith("INS, an identity gene of beta, has 600 counts per 10,000")
    assert "900 in real ones (-9 standard errors)" in level
    assert level.endswith("Also: IAPP.")
    (leak,) = sentences(pair(off="leak", outside=8.0, outside_z=6.0))
    assert leak.startswith("INS, an identity gene of beta, leaks into other types: 8 counts")
    (into,) = sentences(pair(type="alpha", identity=False, mean_real=2.0, mean=9.0, ratio=4.3))
    assert into.startswith("INS, an identity gene of beta, leaks into alpha: 9 counts")
    (spread,) = sentences(pair(off="spread", variance_ratio=0.3))
    assert "varies less than in real cells: its variance is 0.3 times" in spread


def test_identity_genes_of_the_own_type_come_before_leaks():
    leaks = pair(type="alpha", identity=False, ratio=4.0, z=40.0)
    first, second = sentences(leaks, pair())
    assert "has 600" in first
    assert "leaks into alpha" in second


def test_no_sentence_about_other_datasets_and_genes():
    assert not sentences(pair(dataset="theirs"), pair(off=""), pair(identity=False, identity_of=""))
    assert not sentences(pair(type="alpha", identity=False, ratio=0.5))
