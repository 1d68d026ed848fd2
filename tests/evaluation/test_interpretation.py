"""The table in words: findings, warnings, and the worst genes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import NO_CONTROLS, with_counts

import scld
from scld.evaluation import interpretation
from scld.evaluation.registry import METRICS


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


@pytest.mark.parametrize(
    ("above", "sd", "position", "expected"),
    [
        (-1.0, 0.1, -0.5, "like real cells"),
        (0.15, 0.1, 0.05, "like real cells"),
        (0.25, 0.1, 0.05, "small difference"),
        (0.25, np.nan, 0.3, "moderate difference"),
        (0.25, 0.1, 0.99, "large difference"),
        (0.25, 0.1, 1.0, "like the worst negative control"),
        (0.25, 0.1, np.nan, "worse than real cells, no scale"),
    ],
)
def test_words_follow_spread_and_position(above, sd, position, expected):
    assert interpretation.word(above, sd, position) == expected
    assert expected in interpretation.WORDS


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
