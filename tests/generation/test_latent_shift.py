import itertools
from dataclasses import replace

import numpy as np
import pytest
from toy import make_cells

import scld
from scld.generation.editing import transfer_request
from scld.generation.generator import PAGE
from scld.generation.latent_shift import CombinationMeans
from scld.generation.options import SamplingOptions
from scld.generation.request import SamplingRequest
from scld.model.autoencoder import Autoencoder
from scld.schema import MISSING

SIZES, DIMS = (4, 3, 2), 5
RANDOM = np.random.default_rng(0)
EFFECTS = [RANDOM.normal(size=(size, DIMS)) for size in SIZES]
GRID = np.array(list(itertools.product(*map(range, SIZES))))


def additive(rows):
    """Every label shifts the mean by an amount of its own."""
    return sum(effect[rows[:, column]] for column, effect in enumerate(EFFECTS))


def means_without(*left_out):
    seen = np.array([row for row in GRID.tolist() if tuple(row) not in left_out])
    return CombinationMeans.of(additive(seen), seen)


def test_means_are_those_of_the_cells_of_each_combination():
    codes, points = GRID[RANDOM.integers(len(GRID), size=500)], RANDOM.normal(size=(500, DIMS))
    means = CombinationMeans.of(points, codes)
    for row, cells, point in zip(means.combinations, means.cells, means.points, strict=True):
        of_row = (codes == row).all(axis=1)
        assert cells == of_row.sum()
        np.testing.assert_allclose(point, points[of_row].mean(axis=0), atol=1e-6)


def test_where_labels_are_additive_an_unseen_combination_is_recovered_exactly():
    """One label or two labels off: the weights of contexts make no difference.

    All neighbours of (0, 0, 0) in one label are unseen too.
    """
    unseen = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]
    means = means_without(*unseen)
    shifts = means.shifts(np.array(unseen))
    origin = [means.points[(means.combinations == row).all(axis=1)][0] for row in shifts.origin]
    np.testing.assert_allclose(origin + shifts.shift, additive(np.array(unseen)), atol=1e-5)
    assert ((shifts.origin != unseen).sum(axis=1) == [2, 1, 1, 1, 1, 1, 1]).all()


def test_a_seen_combination_is_its_own_origin_and_is_not_shifted():
    shifts = means_without((0, 0, 0)).shifts(GRID[1:])
    origin, shift, decode_labels = shifts.of_cells(slice(None))
    assert (origin == GRID[1:]).all()
    assert (decode_labels == GRID[1:]).all()
    assert not shift.any()


@pytest.mark.parametrize("column", [0, 1, 2])
def test_unspecified_labels_stay_unspecified_and_the_others_count(column):
    rows = GRID.copy()
    rows[:, column] = MISSING
    shifts = means_without((0, 0, 0)).shifts(rows)
    origin, _, _ = shifts.of_cells(slice(None))
    assert (origin == rows).all()  # each was seen with some category of the unspecified label
    assert not shifts.shift.any()
    zeros = (np.delete(GRID, column, axis=1) == 0).all(axis=1)
    means, row = means_without(*map(tuple, GRID[zeros])), rows[zeros][:1]
    shifts = means.shifts(row)
    assert shifts.origin[0, column] == MISSING
    assert (shifts.origin != row).sum() == 1
    reached = means.point(shifts.origin[0]) + shifts.shift[0]
    np.testing.assert_allclose(reached, means.point(row[0]), atol=1e-6)


def test_without_a_context_that_has_both_categories_nothing_is_shifted():
    """Type 1 alone was ever treated: the effects of type and treatment are confounded."""
    seen = np.array([[0, 0], [1, 1], [2, 0]])
    means = CombinationMeans.of(RANDOM.normal(size=(3, DIMS)), seen)
    shifts = means.shifts(np.array([[0, 1]]))
    assert shifts.origin.tolist() == shifts.decode_labels.tolist() == [[0, 1]]
    assert not shifts.shift.any()
    assert means.point(np.array([0, 1])) is None


def test_near_contexts_weigh_more_and_those_of_few_cells_less():
    seen = np.array([[0, 0], [1, 0], [1, 1], [2, 0], [2, 1]])
    points = np.array([[0.0, 0], [1, 0], [1, 1], [5, 0], [5, 9]], np.float32)
    near = CombinationMeans(seen, np.full(5, 1000), points)
    few = CombinationMeans(seen, np.array([1000, 2, 2, 1000, 1000]), points)
    origin, row = np.array([0, 0]), np.array([0, 1])
    shifts = [means._shift(origin, row)[1] for means in (near, few)]
    assert 1 < shifts[0] < 1.1
    assert shifts[0] < shifts[1] < 9


def test_the_origin_is_that_of_the_shortest_shift():
    """A condition that shifts little is changed, not the type."""
    seen = np.array([[0, 0], [1, 0], [1, 1]])
    means = CombinationMeans.of(np.array([[0.0, 0], [9, 0], [9, 2]]), seen)
    shifts = means.shifts(np.array([[0, 1]]))
    assert shifts.origin.tolist() == [[0, 0]]
    np.testing.assert_allclose(shifts.shift, [[0, 2]])


def test_labels_to_decode_are_the_largest_seen_part_and_of_several_that_of_most_cells():
    seen, cells = GRID[1:], np.where((GRID[1:, [0, 2]] == 0).all(axis=1), 50, 10)
    means = CombinationMeans(seen, cells, additive(seen).astype(np.float32))
    assert means.shifts(GRID[:1]).decode_labels.tolist() == [[0, MISSING, 0]]
    pairs = np.array([[0, 0], [1, 0], [1, 1], [2, 0], [2, 1]])
    means = CombinationMeans.of(RANDOM.normal(size=(5, DIMS)), pairs)
    assert means.shifts(np.array([[0, 1]])).decode_labels.tolist() == [[MISSING, 1]]


def test_a_cell_with_a_missing_label_counts_as_of_the_nearest_combination():
    means = means_without((0, 0, 0))
    rows = GRID[1:].copy()
    rows[:, 2] = MISSING
    rows[3:] = GRID[4:]  # known labels stay
    full = means.completed(additive(GRID[1:]).astype(np.float32), rows)
    assert (full == GRID[1:]).all()


def test_differences_are_additive_and_zero_where_a_mean_is_unknown():
    means, rows = means_without((0, 0, 0)), GRID[1:]
    expected = additive(rows[::-1]) - additive(rows)
    np.testing.assert_allclose(means.differences(rows, rows[::-1]), expected, atol=1e-5)
    expected = additive(GRID[:1]) - additive(GRID[1:2])
    np.testing.assert_allclose(means.differences(GRID[1:2], GRID[:1]), expected, atol=1e-5)
    assert not means.differences(GRID, GRID).any()
    confounded = CombinationMeans.of(RANDOM.normal(size=(2, DIMS)), np.array([[0, 0], [1, 1]]))
    assert not confounded.differences(np.array([[0, 0]]), np.array([[0, 1]])).any()


@pytest.mark.parametrize("column", [None, 1])
def test_each_combination_of_a_request_is_looked_up_once(column, monkeypatch):
    """However many cells have it, and in any order."""
    found, usual, rows = [], CombinationMeans._shift_to, GRID.copy()

    def counted(means, row):
        found.append(tuple(row.tolist()))
        return usual(means, row)

    monkeypatch.setattr(CombinationMeans, "_shift_to", counted)
    rows[:, [] if column is None else column] = MISSING
    means = means_without((0, 0, 0))
    first, again = (means.shifts(some) for some in (np.tile(rows, (9, 1)), rows[::-1]))
    assert len(found) == 2 * len(np.unique(rows, axis=0))
    for one, other in zip(
        first.of_cells(slice(len(rows))), again.of_cells(slice(len(rows))), strict=True
    ):
        np.testing.assert_array_equal(one, other[::-1])


def test_a_model_without_labels_has_one_mean():
    points, none = RANDOM.normal(size=(7, DIMS)), np.zeros((7, 0), np.int64)
    means = CombinationMeans.of(points, none)
    np.testing.assert_allclose(means.points, points.mean(axis=0, keepdims=True), atol=1e-6)
    assert means.shifts(none[:4]).of_cells(slice(None))[1].shape == (4, DIMS)


# In a model


@pytest.fixture(scope="module")
def partial(config):
    """Fitted without the cells of type B of donor 1."""
    cells = make_cells(240)
    seen = ((cells.obs["cell_type"] != "B") | (cells.obs["donor"] != 1)).to_numpy()
    synth = scld.Synthesizer(["cell_type", "donor"], config=config)
    return synth.fit(cells[seen].copy(), progress=False)


@pytest.fixture
def generator(partial, threads):
    threads(1)
    return partial._model.generator


def options_of(synth, strength=1.0, **keywords):
    given = {"seed": 0, "progress": False} | keywords
    return SamplingOptions.of(given, synth.labels, synth.config.sampling, strength)


def codes_of(synth, *names):
    labels = zip(synth.schema.labels, names, strict=True)
    return np.array([[label.code(name) for label, name in labels]] * PAGE)


def page_of(generator, codes, start=None):
    (page,) = generator.split(SamplingRequest(codes, start=start))
    return page


def test_seen_combinations_do_not_depend_on_the_means_of_others(partial, generator):
    combinations = partial.schema.combinations
    codes = combinations[np.arange(300) % len(combinations)]
    means = replace(generator.means, points=10 * generator.means.points)
    one, other = (
        list(some.pages(SamplingRequest(codes), options_of(partial)))
        for some in (generator, replace(generator, means=means))
    )
    assert all((a.counts != b.counts).nnz == 0 for a, b in zip(one, other, strict=True))


def test_latents_of_an_unseen_combination_are_those_of_its_origin_shifted(partial, generator):
    """The stored means are those of the latent points of training, so the shift is one of means."""
    page = page_of(generator, codes_of(partial, "B", 1))
    origin = page_of(generator, page.origin)
    made, of_origin = (
        generator.latents(some, options_of(partial)).numpy() for some in (page, origin)
    )
    np.testing.assert_array_equal(made, of_origin + page.shift)
    assert page.shift.any()
    assert partial.schema.seen(page.origin).all()
    assert not partial.schema.seen(page.codes).any()


def test_a_start_of_an_unseen_combination_is_that_of_its_origin_shifted(partial, generator):
    """Shifted back, denoised as of the origin, and shifted again; the library size is kept."""
    points = np.random.default_rng(1).normal(size=(PAGE, 4)).astype(np.float32)
    page = page_of(generator, codes_of(partial, "B", 1), points)
    origin = page_of(generator, page.origin, points - page.shift)
    options = options_of(partial, strength=0.5)
    made, of_origin = (generator.latents(some, options).numpy() for some in (page, origin))
    np.testing.assert_allclose(made, of_origin + page.shift, atol=1e-6)
    np.testing.assert_array_equal(made[:, -1], points[:, -1])


def test_an_unseen_combination_is_decoded_with_the_labels_that_were_seen_together(
    partial, generator, monkeypatch
):
    seen, usual = [], Autoencoder.logits

    def watched(network, latent, labels):
        seen.append(labels.numpy())
        return usual(network, latent, labels)

    monkeypatch.setattr(Autoencoder, "logits", watched)
    page = page_of(generator, codes_of(partial, "B", 1))
    generator.generate(page, options_of(partial, post="off"))
    np.testing.assert_array_equal(np.concatenate(seen), page.decode_labels)
    assert ((page.decode_labels == MISSING).sum(axis=1) == 1).all()


def test_an_unseen_combination_is_the_same_after_saving_and_loading(partial, tmp_path):
    partial.save(tmp_path / "model.scld")
    where = {"cell_type": "B", "donor": 1}
    first, again = (
        some.sample(300, where=where, unseen=True, seed=0, progress=False)
        for some in (partial, scld.load(tmp_path / "model.scld"))
    )
    assert (first.X != again.X).nnz == 0


def starts(synth, cells, to):
    model = synth._model
    parts = (model.generator, model.schema, model.genes)
    return transfer_request(cells, to, options_of(synth, 0.3), *parts).start


def test_a_transfer_starts_at_the_shifted_cell_and_keeps_its_library_size(partial, generator):
    cells = make_cells()
    of_b = cells[(cells.obs["cell_type"] == "B").to_numpy()].copy()
    before, after = (starts(partial, of_b, {"donor": donor}) for donor in (0, 1))
    same, other = of_b.obs["donor"] == 0, of_b.obs["donor"] == 1
    point = generator.means.point
    shift = point(codes_of(partial, "B", 1)[0]) - point(codes_of(partial, "B", 0)[0])
    expected = np.tile(shift[:-1], (same.sum(), 1))
    np.testing.assert_allclose((after - before)[same][:, :-1], expected, atol=1e-5)
    np.testing.assert_array_equal(after[:, -1], before[:, -1])
    expected = (after - before)[same][: other.sum()]  # what they are now was unseen too
    np.testing.assert_allclose((after - before)[other], expected, atol=1e-5)


def test_an_unknown_label_of_a_cell_counts_as_that_of_the_nearest_mean(partial, generator):
    strange, without = make_cells(), make_cells()
    strange.obs["donor"] = 7
    del without.obs["donor"]
    to = {"donor": 0}
    np.testing.assert_array_equal(starts(partial, strange, to), starts(partial, without, to))
    combinations = partial.schema.combinations
    rows = np.where([[False, True]], MISSING, combinations)
    assert (generator.means.completed(generator.means.points, rows) == combinations).all()
