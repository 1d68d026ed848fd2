"""The statistical tests: against other implementations, and uniform p-values without effect."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import kstest, mannwhitneyu, ttest_ind

from scld.power_analysis import detection
from scld.power_analysis.intervals import interval, wilson, yes_or_no


def negative_binomial(donors: int, genes: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mean = random.lognormal(4, 1, genes)
    return random.negative_binomial(8, 8 / (8 + mean), (donors, genes))


def test_pseudobulk_is_the_sum_over_the_cells_of_a_donor():
    counts = np.random.default_rng(0).poisson(1.0, (30, 7))
    donor = np.arange(30) % 4
    expected = [counts[donor == i].sum(axis=0) for i in range(4)]
    found = detection.pseudobulk(sp.csr_matrix(counts), donor, 4)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rate", [0.05, 0.5, 5.0])
def test_the_rank_sum_test_agrees_with_scipy(rate):
    random = np.random.default_rng(1)
    counts = random.poisson(rate, (60, 40)) * random.choice([0.5, 1.0], (60, 1))
    treated = random.random(60) < 0.4
    found = detection.rank_sum(sp.csr_matrix(counts), treated)
    options = {"axis": 0, "method": "asymptotic"}
    with np.errstate(invalid="ignore"):
        expected = mannwhitneyu(counts[treated], counts[~treated], **options).pvalue
    np.testing.assert_allclose(found, np.nan_to_num(expected, nan=1.0), rtol=1e-9)


def test_without_effect_p_values_of_cells_are_uniform_if_cells_are_independent():
    counts = np.random.default_rng(2).poisson(3.0, (200, 300))
    p = detection.rank_sum(sp.csr_matrix(counts), np.arange(200) % 2 == 1)
    assert kstest(p, "uniform").pvalue > 0.01


def test_without_effect_deseq2_finds_next_to_nothing():
    pytest.importorskip("pydeseq2")
    treated = np.arange(10) % 2 == 1
    p, q = detection.deseq2(negative_binomial(10, 150), treated, 0.05)
    assert (p < 0.05).mean() < 0.12
    assert (q < 0.05).sum() <= 2


def test_deseq2_finds_planted_genes_quietly(capfd):
    pytest.importorskip("pydeseq2")
    counts, treated = negative_binomial(10, 100), np.arange(10) % 2 == 1
    counts[np.ix_(treated, range(10))] *= 8
    _, q = detection.deseq2(counts, treated, 0.05)
    assert (q[:10] < 0.05).all()
    assert capfd.readouterr() == ("", "")


def test_faster_means_leave_deseq2_as_it_is():
    dds = pytest.importorskip("pydeseq2.dds")
    inference = pytest.importorskip("pydeseq2.default_inference")
    counts, treated = negative_binomial(8, 60), np.arange(8) % 2 == 1
    found, _ = detection.deseq2(counts, treated, 0.05)
    names = [f"donor_{i}" for i in range(8)]
    with detection._quiet():
        from pydeseq2.ds import DeseqStats

        fitted = dds.DeseqDataSet(
            counts=pd.DataFrame(counts, index=names, columns=[f"g{i}" for i in range(60)]),
            metadata=pd.DataFrame({"group": np.where(treated, "treated", "control")}, index=names),
            design="~group",
            inference=inference.DefaultInference(n_cpus=1),
        )
        fitted.deseq2()
        plain = DeseqStats(fitted, contrast=["group", "treated", "control"], n_cpus=1)
        plain.summary()
    np.testing.assert_allclose(found, plain.results_df["pvalue"], rtol=1e-5)


def test_deseq2_accepts_genes_that_all_have_a_zero():
    pytest.importorskip("pydeseq2")
    counts = negative_binomial(6, 40)
    counts[np.arange(40) % 6, np.arange(40)] = 0
    p, _ = detection.deseq2(counts, np.arange(6) % 2 == 1, 0.05)
    assert np.isfinite(p).mean() > 0.5


def test_the_share_test_is_a_t_test_of_log_odds():
    cells, totals = np.array([5, 9, 7, 20, 16, 25]), np.full(6, 100)
    treated = np.arange(6) >= 3
    odds = np.log((cells + 0.5) / (100.5 - cells))
    expected = ttest_ind(odds[treated], odds[~treated]).pvalue
    assert detection.share_test(cells, totals, treated) == pytest.approx(expected)
    assert detection.share_test(np.full(6, 5), totals, treated) == 1.0


def test_intervals_hold_their_level():
    random = np.random.default_rng(3)
    covered = [low <= 0.3 <= high for _, low, high in _binomial_intervals(random, 0.3)]
    assert 0.9 < np.mean(covered) <= 1.0


def _binomial_intervals(random, share):
    """Replicates that differ: the share of each is drawn around the mean."""
    for _ in range(300):
        of_each = random.beta(5 * share, 5 * (1 - share), 8)
        yield interval(random.binomial(40, of_each).tolist(), [40] * 8)


def test_intervals_of_few_or_equal_replicates():
    assert np.isnan(interval([3], [10])[1])
    assert np.isnan(interval([0, 0], [0, 0])[0])
    share, low, high = interval([0, 0, 0], [10, 10, 10])
    assert share == low == 0.0
    assert 0 < high < 1
    assert yes_or_no([True] * 20)[1:] == pytest.approx(wilson(1.0, 20, 1.959964), abs=1e-6)
