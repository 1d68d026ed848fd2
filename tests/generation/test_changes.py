import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from scld.errors import RequestError
from scld.generation.changes import Changes, Depth, Rows

TABLE = pd.DataFrame({"cell_type": ["B", "T", "NK"] * 400})


def sample(synth, **keywords):
    return synth.sample(obs=TABLE, seed=1, progress=False, **keywords)


def totals(cells):
    return np.asarray(cells.X.sum(axis=1)).ravel()


def test_effects_leave_the_means_of_other_genes_or_the_total():
    effects = Rows(np.array([[1.0, 1], [2, 1]]), np.array([0, 1]))
    mean = np.ones((2, 2), np.float32)
    assert Changes(effects).expected(mean).tolist() == [[1, 1], [2, 1]]
    fixed = Changes(effects, fixed_depth=True).expected(mean)
    np.testing.assert_allclose(fixed, [[1, 1], [4 / 3, 2 / 3]])


def test_some_cells_have_their_own_rows():
    rows = Rows(np.arange(6.0).reshape(3, 2), np.array([2, 0, 1]))
    changes = Changes(effects=rows, depth=Depth(0.5)).some(slice(1, 3))
    assert changes.effects.dense().tolist() == [[0, 1], [2, 3]]
    assert changes.depth == Depth(0.5)
    assert Changes().some(slice(1, 3)) == Changes()


def test_a_lower_depth_keeps_molecules_of_the_same_cells(synth):
    usual, half = sample(synth, mean=True), sample(synth, depth=0.5, mean=True)
    assert (half.X > usual.X).nnz == 0
    share = half.X.sum() / usual.X.sum()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(usual.X.sum())
    np.testing.assert_allclose(half.layers["mean"], 0.5 * usual.layers["mean"], rtol=1e-5)


def test_a_higher_depth_multiplies_expected_counts(synth):
    usual, twice = sample(synth, mean=True), sample(synth, depth=2.0, mean=True)
    np.testing.assert_allclose(twice.layers["mean"], 2 * usual.layers["mean"], rtol=1e-5)
    assert abs(twice.X.sum() / usual.X.sum() - 2) < 0.05


def test_target_totals_are_met_and_the_order_of_cells_is_kept(synth):
    target = np.random.default_rng(0).lognormal(4.5, 0.4, 2000)
    usual, changed = sample(synth, mean=True), sample(synth, depth=target, mean=True)
    before, after = (cells.layers["mean"].sum(axis=1) for cells in (usual, changed))
    assert (np.diff(after[np.argsort(before)]) > -1e-2).all()
    assert abs(np.median(totals(changed)) / np.median(target) - 1) < 0.25
    assert ks_2samp(totals(changed), target).statistic < ks_2samp(totals(usual), target).statistic


def test_twins_at_another_depth_share_what_an_effect_leaves(synth):
    import scld

    effect = scld.Effect({"gene_1": 2.0})
    usual, changed = sample(synth, depth=0.5), sample(synth, depth=0.5, effects=[effect])
    assert set(np.flatnonzero((usual.X != changed.X).toarray().any(axis=0))) == {1}


@pytest.mark.parametrize("value", [0, -1, True, "deep", 1e6, [], [0.0], [np.nan], ["a"], [[]]])
def test_depths_that_cannot_be_are_one_clear_error(value):
    with pytest.raises(RequestError, match=r"depth: got .* a factor from 0.001 to 1000, or"):
        Depth.of(value)
