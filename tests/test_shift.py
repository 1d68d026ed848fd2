import itertools
from dataclasses import replace

import numpy as np
import pytest
from small import make_cells

import scld
from scld.autoencoder import Autoencoder
from scld.edit import Fitted, transferred
from scld.generator import PAGE, Start
from scld.request import plan_of
from scld.schema import MISSING
from scld.shift import Means

SIZES, DIMS = (4, 3, 2), 5
RANDOM = np.random.default_rng(0)
EFFECTS = [RANDOM.normal(size=(size, DIMS)) for size in SIZES]
GRID = np.array(list(itertools.product(*map(range, SIZES))))


def additive(rows):
    """Every label shifts the mean by an amount of its own."""
    return sum(effect[rows[:, column]] for column, effect in enumerate(EFFECTS))


def means_without(*left_out):
    seen = np.array([row for row in GRID.tolist() if tuple(row) not in left_out])
    return Means.of(additive(seen), seen)


def test_means_are_those_of_the_cells_of_each_combination():
    codes, points = GRID[RANDOM.integers(len(GRID), size=500)], RANDOM.normal(size=(500, DIMS))
    means = Means.of(points, codes)
    for row, cells, point in zip(means.combinations, means.cells, means.points, strict=True):
        of_row = (codes == row).all(axis=1)
        assert cells == of_row.sum()
        np.testing.assert_allclose(point, points[of_row].mean(axis=0), atol=1e-6)


def test_where_labels_add_up_an_unseen_combination_is_recovered_exactly():
    """One label off, two labels off, and with as many cells as may be: the weights of contexts make no difference."""
    lonely = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]  # (0, 0, 0) has no seen neighbour in one label
    means = means_without(*lonely)
    way = means.ways(np.array(lonely))
    origin = [means.points[(means.combinations == row).all(axis=1)][0] for row in way.origin]
    np.testing.assert_allclose(origin + way.shift, additive(np.array(lonely)), atol=1e-5)
    assert ((way.origin != lonely).sum(axis=1) == [2, 1, 1, 1, 1, 1, 1]).all()


def test_a_seen_combination_is_its_own_origin_and_is_not_shifted():
    way = means_without((0, 0, 0)).ways(GRID[1:])
    assert (way.origin == GRID[1:]).all()
    assert (way.decoded == GRID[1:]).all()
    assert not way.shift.any()


@pytest.mark.parametrize("open_label", [0, 1, 2])
def test_labels_left_open_stay_open_and_what_is_known_of_them_counts(open_label):
    rows = GRID.copy()
    rows[:, open_label] = MISSING
    way = means_without((0, 0, 0)).ways(rows)
    assert (way.origin == rows).all()  # each was seen with some category of the open label
    assert not way.shift.any()
    left_out = [tuple(row) for row in GRID if (np.delete(row, open_label) == 0).all()]
    means, row = means_without(*left_out), rows[(np.delete(rows, open_label, axis=1) == 0).all(axis=1)][:1]
    way = means.ways(row)
    assert way.origin[0, open_label] == MISSING
    assert (way.origin != row).sum() == 1
    np.testing.assert_allclose(means.point(way.origin[0]) + way.shift[0], means.point(row[0]), atol=1e-6)


def test_without_a_context_that_has_both_categories_nothing_is_shifted():
    """Type 1 alone was ever treated: what treatment does to it cannot be told from what it is."""
    seen = np.array([[0, 0], [1, 1], [2, 0]])
    way = Means.of(RANDOM.normal(size=(3, DIMS)), seen).ways(np.array([[0, 1]]))
    assert way.origin.tolist() == way.decoded.tolist() == [[0, 1]]
    assert not way.shift.any()
    assert Means.of(RANDOM.normal(size=(3, DIMS)), seen).point(np.array([0, 1])) is None


def test_the_nearest_context_says_most_and_few_cells_say_little():
    seen = np.array([[0, 0], [1, 0], [1, 1], [2, 0], [2, 1]])
    points = np.array([[0.0, 0], [1, 0], [1, 1], [5, 0], [5, 9]])
    near = Means(seen, np.full(5, 1000), points.astype(np.float32))
    few = Means(seen, np.array([1000, 2, 2, 1000, 1000]), points.astype(np.float32))
    shifts = [means._shift(np.array([0, 0]), np.array([0, 1]))[1] for means in (near, few)]
    assert 1 < shifts[0] < 1.1
    assert shifts[0] < shifts[1] < 9


def test_it_begins_where_the_way_is_shortest():
    """A condition that shifts little is changed, not the type."""
    seen = np.array([[0, 0], [1, 0], [1, 1]])
    way = Means.of(np.array([[0.0, 0], [9, 0], [9, 2]]), seen).ways(np.array([[0, 1]]))
    assert way.origin.tolist() == [[0, 0]]
    np.testing.assert_allclose(way.shift, [[0, 2]])


def test_it_is_decoded_under_the_largest_part_that_was_seen_of_several_the_one_with_most_cells():
    seen, cells = GRID[1:], np.where((GRID[1:, [0, 2]] == 0).all(axis=1), 50, 10)
    means = Means(seen, cells, additive(seen).astype(np.float32))
    assert means.ways(GRID[:1]).decoded.tolist() == [[0, MISSING, 0]]
    pairs = Means.of(RANDOM.normal(size=(5, DIMS)), np.array([[0, 0], [1, 0], [1, 1], [2, 0], [2, 1]]))
    assert pairs.ways(np.array([[0, 1]])).decoded.tolist() == [[MISSING, 1]]


def test_a_cell_that_lacks_a_label_counts_as_of_the_nearest_combination():
    means = means_without((0, 0, 0))
    rows = GRID[1:].copy()
    rows[:, 2] = MISSING
    rows[3:] = GRID[4:]  # what is known stays
    full = means.completed(additive(GRID[1:]).astype(np.float32), rows)
    assert (full == GRID[1:]).all()


def test_moves_add_up_and_are_nothing_between_the_same_or_the_unknown():
    means = means_without((0, 0, 0))
    np.testing.assert_allclose(means.moves(GRID[1:], GRID[1:][::-1]), additive(GRID[1:][::-1]) - additive(GRID[1:]), atol=1e-5)
    np.testing.assert_allclose(means.moves(GRID[1:2], GRID[:1]), additive(GRID[:1]) - additive(GRID[1:2]), atol=1e-5)
    assert not means.moves(GRID, GRID).any()
    apart = Means.of(RANDOM.normal(size=(2, DIMS)), np.array([[0, 0], [1, 1]]))
    assert not apart.moves(np.array([[0, 0]]), np.array([[0, 1]])).any()


@pytest.mark.parametrize("open_label", [None, 1])
def test_what_was_looked_for_once_is_known(open_label, monkeypatch):
    """Every page asks again, and a combination that was never seen takes a while."""
    looked, usual, rows = [], Means._from_nearest, GRID.copy()
    monkeypatch.setattr(Means, "_from_nearest", lambda table, row: looked.append(tuple(row)) or usual(table, row))
    rows[:, [] if open_label is None else open_label] = MISSING
    means = means_without((0, 0, 0))
    first, again = means.ways(rows), means.ways(rows[::-1])
    assert len(looked) == len(np.unique(rows, axis=0))
    for one, other in ((first.origin, again.origin), (first.shift, again.shift), (first.decoded, again.decoded)):
        np.testing.assert_array_equal(one, other[::-1])


def test_a_model_without_labels_has_one_mean():
    points, none = RANDOM.normal(size=(7, DIMS)), np.zeros((7, 0), np.int64)
    means = Means.of(points, none)
    np.testing.assert_allclose(means.points, points.mean(axis=0, keepdims=True), atol=1e-6)
    assert means.ways(none[:4]).shift.shape == (4, DIMS)


# In a model


@pytest.fixture(scope="module")
def world(config):
    """Fitted without the cells of type B of donor 1."""
    cells = make_cells(240)
    seen = ((cells.obs["cell_type"] != "B") | (cells.obs["donor"] != 1)).to_numpy()
    return scld.Synthesizer(["cell_type", "donor"], config=config).fit(cells[seen].copy(), progress=False)


def codes_of(synth, *names):
    return np.array([[label.code(name) for label, name in zip(synth.schema.labels, names, strict=True)]] * 300)


def test_seen_combinations_are_made_as_if_nothing_were_known_of_means(world):
    plan = plan_of(None, None, 0, world.labels, world.config.sampling)
    codes = world.schema.combinations[np.arange(300) % len(world.schema.combinations)]
    pages = [list(generator.pages(codes, plan)) for generator in (world._generator, replace(world._generator, means=None))]
    assert all((a != b).nnz == 0 for a, b in zip(*pages, strict=True))


def test_latents_of_an_unseen_combination_are_those_of_its_origin_shifted(world):
    """What is stored are the means of the training cells' latent points, so the shift is one of means."""
    plan = plan_of(None, None, 0, world.labels, world.config.sampling)
    codes = codes_of(world, "B", 1)
    way = world._generator.means.ways(codes)
    made, origin = (world._generator.latents(0, part[:256], plan).numpy() for part in (codes, way.origin))
    np.testing.assert_array_equal(made, origin + way.shift[:256])
    assert way.shift.any()
    assert world.schema.seen(way.origin).all()


@pytest.mark.parametrize("keep", [False, True])
def test_a_start_of_an_unseen_combination_is_that_of_its_origin_shifted(world, keep):
    """Shifted back, denoised as what training saw, and shifted again; a depth that is kept is that of the start."""
    plan = plan_of(None, None, 0, world.labels, world.config.sampling, strength=0.5)
    codes, points = codes_of(world, "B", 1)[:PAGE], np.random.default_rng(1).normal(size=(PAGE, 4)).astype(np.float32)
    way = world._generator.means.ways(codes)
    made = world._generator.latents(0, codes, plan, Start(points, keep)).numpy()
    origin = world._generator.latents(0, way.origin, plan, Start(points - way.shift, keep)).numpy()
    np.testing.assert_allclose(made, origin + way.shift, atol=1e-6)
    assert not keep or (made[:, -1] == points[:, -1]).all()


def test_an_unseen_combination_is_decoded_under_the_part_of_it_that_was_seen(world, monkeypatch):
    under, usual = [], Autoencoder.scores
    monkeypatch.setattr(Autoencoder, "scores", lambda network, latent, labels: under.append(labels.numpy()) or usual(network, latent, labels))
    plan, codes = plan_of(None, None, 0, world.labels, world.config.sampling), codes_of(world, "B", 1)[:PAGE]
    world._generator.page(0, codes, replace(plan, candidates=1))
    part = world._generator.means.ways(codes).decoded
    np.testing.assert_array_equal(np.concatenate(under), part)
    assert ((part == MISSING).sum(axis=1) == 1).all()


def test_an_unseen_combination_is_the_same_after_saving_and_loading(world, tmp_path):
    world.save(tmp_path / "model.scld")
    first, again = (some.sample(300, where={"cell_type": "B", "donor": 1}, unseen=True, progress=False) for some in (world, scld.load(tmp_path / "model.scld")))
    assert (first.X != again.X).nnz == 0


def starts(synth, cells, to):
    return transferred(cells, to, Fitted(synth._generator, synth.schema, synth.genes), 0.3).start.points


def test_a_transfer_begins_where_means_lie_and_keeps_its_depth(world):
    cells = make_cells()
    of_b = cells[(cells.obs["cell_type"] == "B").to_numpy()].copy()
    before, after = (starts(world, of_b, {"donor": donor}) for donor in (0, 1))
    same, other = of_b.obs["donor"] == 0, of_b.obs["donor"] == 1
    means = world._generator.means
    move = means.point(codes_of(world, "B", 1)[0]) - means.point(codes_of(world, "B", 0)[0])
    np.testing.assert_allclose((after - before)[same][:, :-1], np.tile(move[:-1], (same.sum(), 1)), atol=1e-5)
    np.testing.assert_array_equal(after[:, -1], before[:, -1])
    np.testing.assert_allclose((after - before)[other], (after - before)[same][: other.sum()], atol=1e-5)  # what they are was not seen either


def test_of_a_cell_whose_own_label_is_unknown_the_nearest_is_taken(world):
    cells = make_cells()
    strange, without = cells.copy(), cells.copy()
    strange.obs["donor"] = 7
    del without.obs["donor"]
    np.testing.assert_array_equal(starts(world, strange, {"donor": 0}), starts(world, without, {"donor": 0}))
    of_means = world._generator.means.completed(world._generator.means.points, np.where([[False, True]], MISSING, world.schema.combinations))
    assert (of_means == world.schema.combinations).all()
