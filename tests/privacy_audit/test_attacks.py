"""Attacks on cells and donors: laws on simulated cells, and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score, roc_curve

from scld.privacy_audit import attacks, results
from scld.privacy_audit.donors import Cells
from scld.privacy_audit.success import (
    DRAWS,
    interval,
    scores_of_donors,
    success,
    true_positives,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def simulated(rng, n, donor="a", kind="B", factors=1.0, genes=40):
    rates = np.linspace(1, 6, genes) * factors
    counts = rng.poisson(rates, (n, genes)).astype(np.float32)
    return Cells(sp.csr_matrix(counts), np.full(n, kind), np.full(n, donor))


def test_normal_scores_are_those_of_midranks(rng):
    values = rng.poisson(1.0, (50, 3)).astype(float)
    found = attacks.normal_scores(np.sort(values, axis=0), values)
    expected = norm.ppf((rankdata(values, axis=0) - 0.5) / 50)
    np.testing.assert_allclose(found, expected)


def test_normal_scores_beyond_the_reference_are_finite():
    scores = attacks.normal_scores(np.arange(4.0)[:, None], np.array([[-9.0], [9.0]]))
    np.testing.assert_allclose(scores.ravel(), norm.ppf([1 / 8, 7 / 8]))


@pytest.mark.parametrize("attack", attacks.BLACK_BOX.values())
def test_no_attack_depends_on_the_order_of_the_genes(attack, rng):
    sets = [rng.normal(shift, 1, (60, 5)) for shift in (0, 1, 0)]
    order = rng.permutation(5)
    np.testing.assert_allclose(
        attack(*sets), attack(*(part[:, order] for part in sets)), rtol=1e-5, atol=1e-6
    )


def test_the_copula_attack_depends_on_ranks_alone(rng):
    sets = [rng.gamma(2.0, size=(60, 5)) + shift for shift in (0, 0.5, 0)]
    cells = np.concatenate(sets[:2])  # at values of the reference a monotone map keeps all ranks
    one = attacks.copula(sets[0], sets[1], cells)
    np.testing.assert_allclose(attacks.copula(*map(np.exp, sets[:2]), np.exp(cells)), one)


def test_the_copula_attack_exchanges_sign_with_its_sets(rng):
    sets = [rng.normal(shift, 1, (60, 5)) for shift in (0, 1, 0)]
    one, other = attacks.copula(*sets), attacks.copula(sets[1], sets[0], sets[2])
    np.testing.assert_allclose(one, -other, atol=1e-9)


def test_the_distances_of_the_copula_attack(rng):
    reference, cells = rng.normal(size=(2000, 3)), rng.normal(size=(4, 3))
    inverse, mean = np.linalg.inv(np.cov(reference.T, bias=True)), reference.mean(axis=0)
    expected = [mahalanobis(cell, mean, inverse) for cell in cells]
    np.testing.assert_allclose(attacks._mahalanobis(reference, cells), expected, rtol=0.05)


def test_the_distance_attack_is_the_distance_of_all_components(rng):
    released, auxiliary, cells = (rng.normal(size=(30, 4)) for _ in range(3))
    expected = -cdist(cells, released).min(axis=1)
    np.testing.assert_allclose(attacks.distance(released, auxiliary, cells), expected, atol=1e-5)


def test_copies_have_no_distance(rng):
    released = rng.normal(size=(30, 4))
    found = attacks.distance(released, rng.normal(size=(30, 4)), released[:5])
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_equal_densities_cancel(rng):
    released, cells = rng.normal(size=(30, 4)), rng.normal(size=(9, 4))
    np.testing.assert_allclose(attacks.domias(released, released, cells), 0, atol=1e-9)
    np.testing.assert_allclose(attacks.copula(released, released, cells), 0, atol=1e-9)


def test_scores_are_standardised_within_types_and_missing_in_small_ones(rng):
    parts = [(simulated(rng, 30), simulated(rng, 9, kind="T")) for _ in range(2)]
    sets = [joined(*part) for part in parts]
    cells = joined(simulated(rng, 20), simulated(rng, 20, kind="T"))
    for scores in attacks.scores_of_cells(*sets, cells).values():
        assert np.isnan(scores[20:]).all()
        assert scores[:20].mean() == pytest.approx(0, abs=1e-9)
        assert scores[:20].std() == pytest.approx(1)


def joined(*parts):
    counts = sp.vstack([part.counts for part in parts], format="csr")
    kinds = np.concatenate([part.types for part in parts])
    return Cells(counts, kinds, np.concatenate([part.donors for part in parts]))


def test_the_most_variable_genes(rng, monkeypatch):
    monkeypatch.setattr(attacks, "GENES", 2)
    values = rng.normal(size=(40, 5)) * [1, 9, 1, 8, 2]
    halves = sp.csr_matrix(values[:20]), sp.csr_matrix(values[20:])
    assert attacks.most_variable(*halves).tolist() == [1, 3]


def test_donors_whose_shift_was_released_are_found(rng):
    """A donor shift of a tenth: hard to see in a cell, certain in a hundred."""
    factors = np.exp(rng.normal(0, 0.1, (5, 40)))
    donors = [simulated(rng, 200, str(i), factors=factors[i]) for i in range(5)]
    cells, released = joined(*donors[:4]), joined(*donors[:2])
    scores = attacks.scores_of_cells(released, donors[4], cells)
    for name in (results.COPULA, results.DOMIAS):
        aucs = [auc_of(scores[name], cells, number, rng) for number in (1, 100)]
        assert aucs[0] < aucs[1]
        assert aucs[1] > 0.95


def auc_of(scores, cells, number, rng):
    sides = [scores_of_donors(scores, cells.donors, names, number, rng) for names in ("01", "23")]
    return success(*sides)[results.AUC]


def test_a_set_of_cells_has_so_many_cells_and_small_donors_are_left_out(rng):
    scores = np.array([0.0, 1.0, 2.0, 8.0, np.nan, np.nan])
    donors = np.array(["a", "a", "a", "b", "b", "b"])
    found = scores_of_donors(scores, donors, ["a", "b"], 2, rng)
    assert len(found) == DRAWS
    assert set(found) == {0.5, 1.0, 1.5}
    assert len(scores_of_donors(scores, donors, ["a", "b"], 1, rng)) == 2 * DRAWS
    assert set(scores_of_donors(scores, donors, ["a"], 3, rng)) == {1.0}


def test_success_agrees_with_scikit_learn(rng):
    members, others = rng.normal(1, 1, 200).round(1), rng.normal(0, 1, 200).round(1)
    is_member, scores = np.repeat([1, 0], 200), np.concatenate([members, others])
    found = success(members, others)
    assert found["auc"] == pytest.approx(roc_auc_score(is_member, scores))
    false, true, _ = roc_curve(is_member, scores, drop_intermediate=False)
    for name, rate in results.RATES.items():
        assert found[name] == pytest.approx(true[false <= rate + 1e-9].max())


@pytest.mark.parametrize(("others", "missing"), [(9, 2), (10, 1), (99, 1), (100, 0)])
def test_rates_need_enough_others(others, missing, rng):
    found = success(rng.normal(size=20), rng.normal(size=others))
    assert sum(np.isnan(value) for value in found.values()) == missing


def test_without_members_nothing_is_known():
    assert all(np.isnan(value) for value in success(np.zeros(0), np.zeros(3)).values())


def test_ties_are_no_true_positives():
    assert true_positives(np.ones(5), np.ones(10), 0.1) == 0


def test_intervals():
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    mean, low, high = interval([0.9, 1.0, np.nan, 0.95])
    assert mean == pytest.approx(0.95)
    assert low < mean < high == 1.0
    assert np.isnan(interval([0.7])[1:]).all()
    assert np.isnan(interval([np.nan])).all()
