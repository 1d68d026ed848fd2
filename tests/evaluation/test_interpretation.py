"""The table in words: findings, warnings, and the worst genes."""

from __future__ import annotations

import numpy as np
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
    worst = interpretation.worst_genes(found.genes, "synthetic")
    assert worst.iloc[0]["gene"] == f"g{gene}"
