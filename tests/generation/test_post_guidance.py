from dataclasses import fields, replace

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.torch import load_file, save_file
from sklearn.ensemble import GradientBoostingClassifier

from scld.config import DiscriminatorConfig
from scld.generation.post_guidance import (
    Discriminator,
    Examples,
    LabelledCells,
    _best_stage,
    select,
)
from scld.schema import MISSING

CONFIG = DiscriminatorConfig(components=4, trees=40, depth=3, leaf=10)
RANDOM = np.random.default_rng(0)
MEANS = np.array([[8.0] * 5 + [1.0] * 5, [1.0] * 5 + [8.0] * 5])  # of two types


def draw(n, share, random=RANDOM):
    """Counts of cells of two types, a share of them of the second; and their types."""
    types = (random.random(n) < share).astype(int)
    counts = random.poisson(MEANS[types]).astype(np.float32)
    return sp.csr_matrix(counts + (np.arange(10) == 0)), types


def unlabelled(counts):
    return LabelledCells(counts, np.zeros((counts.shape[0], 0), np.int64))


def labelled(counts):
    return LabelledCells(counts, RANDOM.integers(0, 3, (counts.shape[0], 2)))


@pytest.fixture(scope="module")
def examples():
    """Half of the real cells are of the second type, of the generated ones a fifth."""
    reference = draw(600, 0.2)[0]
    training, held_out = (
        Examples(labelled(draw(n, 0.5)[0]), labelled(draw(n * 3 // 2, 0.2)[0])) for n in (600, 400)
    )
    return reference, training, held_out


@pytest.fixture(scope="module")
def discriminator(examples):
    return Discriminator.fit(*examples, CONFIG, seed=5)


def features(discriminator, cells):
    """What the trees see, with dense arithmetic."""
    dense = cells.counts.toarray()
    totals = dense.sum(axis=1, keepdims=True)
    components = np.log1p(dense * (discriminator.library / totals)) @ discriminator.loadings
    detected = np.log((dense > 0).sum(axis=1, keepdims=True))
    return np.hstack([components, np.log(totals), detected, cells.codes]).astype(np.float32)


def loaded(discriminator, path, genes=10, labels=2):
    """After saving it and loading it again."""
    save_file(discriminator.tensors(), path)
    return Discriminator.from_tensors(load_file(path), genes, labels)


def test_log_odds_are_those_of_scikit_learn_less_those_of_the_numbers_of_cells(
    examples, discriminator
):
    training = examples[1]
    table = np.concatenate([features(discriminator, cells) for cells in training])
    count = len(discriminator.trees.feature)
    assert 5 < count <= 40
    model = GradientBoostingClassifier(
        n_estimators=count,
        learning_rate=0.05,
        max_depth=3,
        subsample=0.5,
        max_features=0.3,
        min_samples_leaf=10,
        random_state=5,
    )
    model.fit(table, np.repeat([1, 0], [600, 900]))
    fresh = labelled(draw(500, 0.5)[0])
    expected = model.decision_function(features(discriminator, fresh)) - np.log(600 / 900)
    found = discriminator.log_odds(fresh)
    assert len(np.unique(found)) > 50
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_library_size_is_the_geometric_mean_and_loadings_have_unit_length(
    examples, discriminator
):
    totals = examples[0].toarray().sum(axis=1)
    assert np.isclose(discriminator.library, np.exp(np.log(totals).mean()))
    loadings = discriminator.loadings
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(4), atol=1e-5)


def test_log_odds_are_clipped(examples, discriminator):
    clipped = Discriminator.fit(*examples, replace(CONFIG, clip=0.2), seed=5)
    cells = examples[1].real
    unclipped = replace(clipped, clip=9.0).log_odds(cells)
    assert np.abs(unclipped).max() > 0.2
    np.testing.assert_array_equal(clipped.log_odds(cells), unclipped.clip(-0.2, 0.2))


def test_saved_and_loaded_it_gives_the_same_log_odds(examples, discriminator, tmp_path):
    again, cells = loaded(discriminator, tmp_path / "a.safetensors"), examples[1].real
    np.testing.assert_array_equal(again.log_odds(cells), discriminator.log_odds(cells))
    for entry in fields(discriminator):
        assert type(getattr(again, entry.name)) is type(getattr(discriminator, entry.name))
    assert all(again.tensors()[name].equal(t) for name, t in discriminator.tensors().items())


def test_the_same_seed_gives_the_same_discriminator(examples, discriminator):
    again = Discriminator.fit(*examples, CONFIG, seed=5).tensors()
    assert all(again[name].equal(tensor) for name, tensor in discriminator.tensors().items())


def test_log_odds_of_a_cell_do_not_depend_on_the_others(examples, discriminator):
    cells = examples[1].real
    some = LabelledCells(cells.counts[:7], cells.codes[:7])
    whole = discriminator.log_odds(cells)[:7]
    np.testing.assert_allclose(discriminator.log_odds(some), whole, rtol=1e-12)


def test_labels_count_and_may_be_unspecified(examples):
    """Cells that differ by a label alone, where counts say nothing.

    An unspecified label is a value like others.
    """
    reference, training, _ = examples
    pooled = sp.csr_matrix(sp.vstack([cells.counts for cells in training]))
    real, generated = (pooled[RANDOM.permutation(1500)[:n]] for n in (600, 900))
    twos, zeros = np.full((600, 1), 2), np.zeros((900, 1), np.int64)
    sides = Examples(LabelledCells(real, twos), LabelledCells(generated, zeros))
    found = Discriminator.fit(reference, sides, sides, CONFIG, seed=0)
    counts = training.real.counts
    assert found.log_odds(LabelledCells(counts, twos)).min() > 0
    assert found.log_odds(LabelledCells(counts, zeros[:600])).max() < 0
    unspecified = LabelledCells(counts, np.full((600, 1), MISSING))
    assert np.isfinite(found.log_odds(unspecified)).all()


@pytest.mark.parametrize("number", [1, 5, 20])
def test_few_cells_are_enough(number):
    real, generated = (unlabelled(draw(number, 0.5)[0]) for _ in range(2))
    sides = Examples(real, generated)
    settings = DiscriminatorConfig()
    found = Discriminator.fit(generated.counts, sides, sides, settings, seed=2**63 - 1)
    assert np.isfinite(found.log_odds(real)).all()


def test_it_is_inactive_where_held_out_cells_cannot_be_separated(examples, tmp_path):
    """Differences that only the cells of training show are not learnt.

    It is still inactive after saving and loading.
    """
    reference, training, held_out = examples
    alike = held_out._replace(real=labelled(draw(400, 0.2)[0]))
    inactive = Discriminator.fit(reference, training, alike, CONFIG, seed=5)
    assert not inactive.active
    assert Discriminator.fit(reference, training, held_out, CONFIG, seed=5).active
    again = loaded(inactive, tmp_path / "a.safetensors")
    assert not again.active
    assert not again.log_odds(training.real).any()


def test_the_number_of_trees_is_the_one_that_separates_held_out_cells_best():
    """By the mean cross-entropy of both sides; none if a guess is within a standard error."""
    stages = np.array([0.2, 0.8, 1.5, 0.4])[:, None]
    real, generated = (
        stages * np.array([1, 1, 1, -1.0] * 50),
        -stages * np.array([1, 1, -1, 1.0] * 50),
    )
    losses = np.log1p(np.exp(-real)).mean(1) + np.log1p(np.exp(generated)).mean(1)
    assert _best_stage(real, generated) == np.argmin(losses) + 1
    assert _best_stage(real[:, :4], generated[:, :4]) == 0
    assert _best_stage(-real, -generated) == 0


# What is loaded is validated: a descent ends, and stays within the arrays


def at(index, value):
    def changed(tensor):
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return changed


DAMAGE = {
    "a child far outside": ("left", at((0, 0), 10**9)),
    "a child before the first": ("right", at((0, 0), -(10**9))),
    "a cycle of two nodes": ("left", at((0, 1), 0)),
    "half a leaf": ("left", at((0, 0), 0)),
    "a feature that cells do not have": ("feature", at((0, 0), 8)),
    "a negative feature": ("feature", at((0, 0), -1)),
    "features of 32 bits": ("feature", lambda old: old.int()),
    "children that are no integers": ("left", lambda old: old.double()),
    "a tree less": ("value", lambda old: old[:-1]),
    "a node less": ("threshold", lambda old: old[:, :-1]),
    "one axis": ("right", lambda old: old.ravel()),
    "a threshold that is not a number": ("threshold", at((0, 0), np.nan)),
    "an infinite value": ("value", at((0, 0), np.inf)),
    "loadings a row short": ("loadings", lambda old: old[:-1]),
    "loadings a column short": ("loadings", lambda old: old[:, :-3]),
    "loadings in double precision": ("loadings", lambda old: old.double()),
    "one axis of loadings": ("loadings", lambda old: old[:, 0]),
    "a library size of zero": ("library", lambda old: 0 * old),
    "a library size that is not a number": ("library", lambda old: old * np.nan),
    "two library sizes": ("library", lambda old: old.repeat(2)),
    "a clip below zero": ("clip", lambda old: -old),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_discriminator_is_refused(discriminator, kind):
    name, change = DAMAGE[kind]
    tensors = discriminator.tensors()
    tensors[name] = change(tensors[name])
    with pytest.raises(ValueError, match=r"^(trees|discriminator): "):
        Discriminator.from_tensors(tensors, 10, 2)


@pytest.mark.parametrize(("genes", "labels"), [(9, 2), (11, 2), (10, 0)])
def test_a_discriminator_of_another_model_is_refused(discriminator, genes, labels):
    assert discriminator.trees.feature.max() >= 6
    with pytest.raises(ValueError, match=r"^(trees|discriminator): "):
        Discriminator.from_tensors(discriminator.tensors(), genes, labels)


def test_a_missing_tensor_is_named(discriminator):
    tensors = discriminator.tensors()
    del tensors["left"]
    with pytest.raises(KeyError, match="left"):
        Discriminator.from_tensors(tensors, 10, 2)


# Selection


@pytest.mark.parametrize("odds", [[1.0, 1.0], [1.0, 3.0, 0.5, 2.0], [1.0, 0.0], [5.0]], ids=str)
def test_the_probability_of_a_candidate_is_proportional_to_its_odds(odds):
    n, expected = 100_000, np.array(odds) / np.sum(odds)
    with np.errstate(divide="ignore"):
        log_odds = np.repeat(np.log(odds)[:, None], n, axis=1)
    selected = select(log_odds, np.random.default_rng(0).random(n))
    found = np.bincount(selected, minlength=len(odds)) / n
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / n)).all()


def test_each_cell_is_selected_by_its_own_odds_and_quantile():
    log_odds, quantiles = RANDOM.normal(0, 2, (4, 300)), RANDOM.random(300)
    expected = []
    for column, quantile in zip(log_odds.T, quantiles, strict=True):
        probabilities = np.exp(column) / np.exp(column).sum()
        expected.append(int(np.searchsorted(probabilities.cumsum(), quantile, side="right")))
    np.testing.assert_array_equal(select(log_odds, quantiles), expected)
    far = select(log_odds + 700, quantiles)  # odds are relative, however large
    np.testing.assert_array_equal(far, expected)


def test_the_ends_of_the_quantiles_are_candidates_too():
    log_odds = RANDOM.normal(0, 2, (4, 300))
    assert (select(log_odds, np.zeros(300)) == 0).all()
    assert select(log_odds, np.full(300, np.nextafter(1, 0))).max() == 3


def test_selection_moves_a_wrong_mixture_towards_the_real_one(examples):
    """A fifth of the candidates is of the second type, where half of the real cells are."""
    reference, *sides = examples
    training, held_out = (
        Examples(*(unlabelled(cells.counts) for cells in example)) for example in sides
    )
    settings = DiscriminatorConfig()
    found = Discriminator.fit(reference, training, held_out, settings, seed=0)
    candidates = [draw(2000, 0.2) for _ in range(8)]
    log_odds = np.stack([found.log_odds(unlabelled(counts)) for counts, _ in candidates])
    selected = select(log_odds, RANDOM.random(2000))
    types = np.stack([types for _, types in candidates])[selected, np.arange(2000)]
    assert 0.3 < types.mean() < 0.6
