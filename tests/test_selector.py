from dataclasses import fields, replace

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.torch import load_file, save_file
from sklearn.ensemble import GradientBoostingClassifier

from scld.config import SelectorConfig
from scld.schema import MISSING
from scld.selector import Selector, Sides, _best_stage, choose

CONFIG = SelectorConfig(components=4, trees=40, depth=3, leaf=10)
RANDOM = np.random.default_rng(0)
MEANS = np.array([[8.0] * 5 + [1.0] * 5, [1.0] * 5 + [8.0] * 5])  # of two types


def draw(n, share, random=RANDOM):
    """Counts of cells of two types, a share of them of the second; and which they are."""
    types = (random.random(n) < share).astype(int)
    return sp.csr_matrix(random.poisson(MEANS[types]).astype(np.float32) + (np.arange(10) == 0)), types


def no_labels(counts):
    return np.zeros((counts.shape[0], 0), np.int64)


def sides(real, generated, *codes):
    codes = codes or [RANDOM.integers(0, 3, (counts.shape[0], 2)) for counts in (real, generated)]
    return Sides(real, generated, *codes)


@pytest.fixture(scope="module")
def pair():
    """Half of the real cells are of the second type, of the generated ones a fifth."""
    cells, held_out = (sides(draw(n, 0.5)[0], draw(n * 3 // 2, 0.2)[0]) for n in (600, 400))
    return draw(600, 0.2)[0], cells, held_out


@pytest.fixture(scope="module")
def selector(pair):
    return Selector.of(*pair, CONFIG, seed=5)


def portraits(selector, counts, codes):
    """What the trees look at, with dense arithmetic."""
    dense = counts.toarray()
    totals = dense.sum(axis=1, keepdims=True)
    components = np.log1p(dense * (selector.library / totals)) @ selector.loadings
    return np.hstack([components, np.log(totals), np.log((dense > 0).sum(axis=1, keepdims=True)), codes]).astype(np.float32)


def test_the_log_odds_are_scikit_learns_less_those_of_the_numbers_of_cells(pair, selector):
    real, generated, *codes = pair[1]
    table = np.concatenate([portraits(selector, counts, labels) for counts, labels in zip((real, generated), codes, strict=True)])
    count = len(selector.feature)
    assert 5 < count <= 40
    model = GradientBoostingClassifier(
        n_estimators=count, learning_rate=0.05, max_depth=3, subsample=0.5, max_features=0.3, min_samples_leaf=10, random_state=5
    )
    model.fit(table, np.repeat([1, 0], [600, 900]))
    fresh, labels = draw(500, 0.5)[0], RANDOM.integers(0, 3, (500, 2))
    expected = model.decision_function(portraits(selector, fresh, labels)) - np.log(600 / 900)
    found = selector.log_odds(fresh, labels)
    assert len(np.unique(found)) > 50
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_library_size_is_the_usual_one_and_the_loadings_are_of_unit_length(pair, selector):
    assert np.isclose(selector.library, np.exp(np.log(pair[0].toarray().sum(axis=1)).mean()))
    np.testing.assert_allclose(selector.loadings.T @ selector.loadings, np.eye(4), atol=1e-5)


def test_log_odds_are_never_larger_than_the_most(pair, selector):
    bound = Selector.of(*pair, SelectorConfig(components=4, trees=40, depth=3, leaf=10, clip=0.2), seed=5)
    found = bound.log_odds(pair[1].real, pair[1].real_codes)
    free = replace(bound, clip=np.array(9.0)).log_odds(pair[1].real, pair[1].real_codes)
    assert np.abs(free).max() > 0.2
    np.testing.assert_array_equal(found, free.clip(-0.2, 0.2))


def test_saved_and_loaded_it_gives_the_same_log_odds(pair, selector, tmp_path):
    save_file(selector.tensors(), tmp_path / "selector.safetensors")
    loaded = Selector.from_tensors(load_file(tmp_path / "selector.safetensors"))
    np.testing.assert_array_equal(*(some.log_odds(pair[1].real, pair[1].real_codes) for some in (loaded, selector)))
    assert {entry.name for entry in fields(selector)} == set(selector.tensors())


def test_the_same_seed_is_the_same_selector(pair, selector):
    for name, tensor in Selector.of(*pair, CONFIG, seed=5).tensors().items():
        assert tensor.equal(selector.tensors()[name])


def test_log_odds_of_a_cell_do_not_depend_on_the_others(pair, selector):
    real, _, codes, _ = pair[1]
    np.testing.assert_allclose(selector.log_odds(real[:7], codes[:7]), selector.log_odds(real, codes)[:7], rtol=1e-12)


def test_labels_count_and_may_be_open(pair):
    """Told apart by a label alone, where counts say nothing; an open label is a value like others."""
    reference, (real, generated, *_), _ = pair
    codes = (np.full((600, 1), 2), np.zeros((900, 1), np.int64))
    shuffled = [sp.csr_matrix(sp.vstack([real, generated]))[RANDOM.permutation(1500)[:n]] for n in (600, 900)]
    told = sides(*shuffled, *codes)
    selector = Selector.of(reference, told, told, CONFIG, seed=0)
    assert selector.log_odds(real, np.full((600, 1), 2)).min() > 0 > selector.log_odds(real, np.zeros((600, 1), np.int64)).max()
    assert np.isfinite(selector.log_odds(real, np.full((600, 1), MISSING))).all()


@pytest.mark.parametrize("cells", [1, 5, 20])
def test_few_cells_do(cells):
    real, generated = draw(cells, 0.5)[0], draw(cells, 0.5)[0]
    told = sides(real, generated, no_labels(real), no_labels(generated))
    selector = Selector.of(generated, told, told, SelectorConfig(), seed=2**63 - 1)
    assert np.isfinite(selector.log_odds(real, no_labels(real))).all()


def test_what_only_the_cells_of_training_show_is_not_learnt(pair, tmp_path):
    """Held-out real cells that are like generated ones: nothing is to be told, and a silent selector says so, also when saved and loaded."""
    reference, cells, held_out = pair
    alike = held_out._replace(real=draw(400, 0.2)[0])
    silent = Selector.of(reference, cells, alike, CONFIG, seed=5)
    assert silent.silent
    assert not Selector.of(reference, cells, held_out, CONFIG, seed=5).silent
    save_file(silent.tensors(), tmp_path / "silent.safetensors")
    loaded = Selector.from_tensors(load_file(tmp_path / "silent.safetensors"))
    assert loaded.silent
    assert not loaded.log_odds(cells.real, cells.real_codes).any()


def test_as_many_trees_are_kept_as_tell_held_out_cells_best():
    """By the mean of both sides' cross-entropies; none where the best is within a standard error of a guess."""
    stages = np.array([0.2, 0.8, 1.5, 0.4])[:, None]
    real, generated = stages * np.array([1, 1, 1, -1.0] * 50), -stages * np.array([1, 1, -1, 1.0] * 50)
    losses = [np.log1p(np.exp(-real)).mean(1) + np.log1p(np.exp(generated)).mean(1)]
    assert _best_stage(real, generated) == np.argmin(losses) + 1
    assert _best_stage(real[:, :4], generated[:, :4]) == 0
    assert _best_stage(-real, -generated) == 0


# The choice


@pytest.mark.parametrize("odds", [[1.0, 1.0], [1.0, 3.0, 0.5, 2.0], [1.0, 0.0], [5.0]], ids=str)
def test_the_chance_of_a_candidate_is_proportional_to_its_odds(odds):
    n, share = 100_000, np.array(odds) / np.sum(odds)
    with np.errstate(divide="ignore"):
        log_odds = np.repeat(np.log(odds)[:, None], n, axis=1)
    found = np.bincount(choose(log_odds, np.random.default_rng(0).random(n)), minlength=len(odds)) / n
    assert (np.abs(found - share) <= 5 * np.sqrt(share * (1 - share) / n)).all()


def test_each_cell_is_chosen_by_its_own_odds_and_quantile():
    log_odds, quantiles = RANDOM.normal(0, 2, (4, 300)), RANDOM.random(300)
    expected = []
    for column, quantile in zip(log_odds.T, quantiles, strict=True):
        chances = np.exp(column) / np.exp(column).sum()
        expected.append(int(np.searchsorted(chances.cumsum(), quantile, side="right")))
    np.testing.assert_array_equal(choose(log_odds, quantiles), expected)
    np.testing.assert_array_equal(choose(log_odds + 700, quantiles), choose(log_odds, quantiles))  # odds are relative, however large


def test_the_ends_of_the_quantiles_are_candidates_too():
    log_odds = RANDOM.normal(0, 2, (4, 300))
    assert (choose(log_odds, np.zeros(300)) == 0).all()
    assert choose(log_odds, np.full(300, np.nextafter(1, 0))).max() == 3


def test_selection_moves_a_wrong_mixture_towards_the_real_one(pair):
    """A fifth of the candidates is of the second type, where half of the real cells are; within a type nothing is wrong."""
    reference, *told = pair
    cells, held_out = (sides(real, generated, no_labels(real), no_labels(generated)) for real, generated, *_ in told)
    selector = Selector.of(reference, cells, held_out, SelectorConfig(), seed=0)
    made = [draw(2000, 0.2) for _ in range(8)]
    log_odds = np.stack([selector.log_odds(counts, no_labels(counts)) for counts, _ in made])
    chosen = choose(log_odds, RANDOM.random(2000))
    types = np.stack([types for _, types in made])[chosen, np.arange(2000)]
    assert 0.3 < types.mean() < 0.6
