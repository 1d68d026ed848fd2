"""Privacy metrics: 0.5 for new cells, 1 for copies."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from gaussians import clouds

from scld.evaluation.metrics import (
    auc,
    donor_membership_auc,
    exact_copies,
    membership_auc,
    nearer_training,
    nearest_distance,
)


def test_nearest_distance_is_the_smallest_of_all(rng):
    from scipy.spatial.distance import cdist

    cells, others = clouds(rng)
    every = np.sort(cdist(cells, others), axis=1)
    for rank in (0, 1):
        np.testing.assert_allclose(nearest_distance(cells, others, rank), every[:, rank])


def test_nearer_training_of_fresh_cells_is_half_and_of_copies_one(rng):
    train, held_out, fresh = rng.normal(size=(3, 500, 5))
    to_train, to_held_out = nearest_distance(fresh, train), nearest_distance(fresh, held_out)
    assert nearer_training(to_train, to_held_out) == pytest.approx(0.5, abs=0.08)
    opposite = nearer_training(to_held_out, to_train)
    assert opposite == pytest.approx(1 - nearer_training(to_train, to_held_out))
    assert nearer_training(nearest_distance(train, train), nearest_distance(train, held_out)) == 1


def test_membership_auc_of_fresh_cells_is_half_and_of_copies_one(rng):
    train, held_out, fresh = rng.normal(size=(3, 400, 5))
    assert membership_auc(fresh, train, held_out) == pytest.approx(0.5, abs=0.08)
    assert membership_auc(train, train, held_out) == 1


def test_donor_membership_adds_up_small_shifts_of_cells(rng):
    """A shift too small to detect by cell is clear by donor: the reason for scoring donors."""
    donor = np.repeat([f"d{i}" for i in range(20)], 200)
    member = np.repeat(np.arange(20) < 10, 200)
    distance = rng.normal(size=4000) - 0.3 * member
    by_cell = auc(-distance[member], -distance[~member])
    by_donor = donor_membership_auc(distance, np.zeros(4000), donor, member)
    assert by_cell < 0.65
    assert by_donor > 0.95


def test_donor_membership_does_not_depend_on_composition(rng):
    """Donors with more cells of a variable type do not appear distant."""
    codes = np.concatenate([rng.random(2000) < 0.9, rng.random(2000) < 0.1]).astype(int)
    donor, member = np.repeat([f"d{i}" for i in range(20)], 200), np.repeat([True, False], 2000)
    distance = 5.0 * codes + rng.normal(size=4000)
    assert auc(-distance[member], -distance[~member]) < 0.2
    assert 0.15 < donor_membership_auc(distance, codes, donor, member) < 0.85


def test_exact_copies_ignores_stored_zeros_and_order_of_entries(rng):
    dense = rng.poisson(1.0, (30, 12)).astype(np.float32) + np.eye(30, 12, dtype=np.float32)
    stored = sp.csr_matrix(
        (np.array([1.0, 0.0]), (np.array([0, 0]), np.array([3, 5]))), shape=(1, 12)
    )
    bare = sp.csr_matrix((np.array([1.0]), (np.array([0]), np.array([3]))), shape=(1, 12))
    assert exact_copies(stored, bare) == 1
    assert exact_copies(sp.csr_matrix(dense), sp.csr_matrix(dense[:15])) >= 0.5
    assert exact_copies(sp.csr_matrix(dense + 1), sp.csr_matrix(dense)) == 0
