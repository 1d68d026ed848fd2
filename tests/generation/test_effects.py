import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import scld
from scld.errors import RequestError
from scld.generation.effects import (
    check_effects,
    effects_of,
    effects_table,
    fold_changes,
    gene_columns,
)

GENES = pd.DataFrame({"gene": ["a", "b", "c", "never"], "seen": [True, True, True, False]})
OBS = pd.DataFrame({"type": ["B", "B", "T"], "group": [1, 2, 1], "flag": [True, False, True]})


def folds(*effects):
    return np.log2(fold_changes(list(effects), OBS, GENES).factors.dense())


def test_an_effect_changes_its_genes_in_the_cells_that_match_and_no_other():
    found = folds(scld.Effect({"a": 2, "c": -1}, where={"type": "B", "group": 2}))
    np.testing.assert_allclose(found, [[0, 0, 0], [2, 0, -1], [0, 0, 0]])


@pytest.mark.parametrize("where", [{"group": [1, 2]}, {}, {"flag": [True, "False"]}])
def test_lists_of_categories_and_no_condition_match(where):
    np.testing.assert_allclose(folds(scld.Effect({"b": 1}, where))[:, 1], 1)


def test_effects_on_the_same_cells_add_up_and_this_is_said():
    effects = scld.Effect({"a": 1}), scld.Effect({"a": 2}, where={"type": "T"})
    with pytest.warns(UserWarning, match="several effects on the same genes of the same cells"):
        np.testing.assert_allclose(folds(*effects)[:, 0], [1, 1, 3])


def test_a_table_of_effects_can_be_read_back():
    effects = [
        scld.Effect({"a": 2.0, "b": -1.0}, where={"type": ["B", "T"]}),
        scld.Effect({"c": 0.5}),
    ]
    table = effects_table(effects)
    assert list(table) == ["effect", "gene", "log2fc", "type"]
    back = effects_of(table)
    assert len(back) == 3  # of each category one
    np.testing.assert_allclose(folds(*back), folds(*effects))


def test_a_table_without_conditions_or_numbers_is_one_effect_of_all_cells():
    (effect,) = effects_of(pd.DataFrame({"gene": ["a", "b"], "log2fc": [1, 2]}))
    assert effect == scld.Effect({"a": 1, "b": 2})


def test_numbers_match_numbers_and_missing_values_match_nothing():
    obs = OBS.assign(dose=[1.0, np.nan, 2.0])
    rows = fold_changes([scld.Effect({"a": 1}, {"dose": 1})], obs, GENES)
    assert np.log2(rows.factors.dense())[:, 0].tolist() == [1, 0, 0]
    assert list(rows.numbers) == ["1", "", ""]


def test_a_missing_condition_matches_every_cell():
    table = pd.DataFrame({"gene": ["a", "b"], "log2fc": [1, 2], "type": ["B", None]})
    np.testing.assert_allclose(folds(*effects_of(table)), [[1, 2, 0], [1, 2, 0], [0, 2, 0]])


def test_the_fold_changes_of_each_effect_are_a_var_column():
    columns = gene_columns([scld.Effect({"a": 1}), scld.Effect({"b": -2})], GENES["gene"])
    assert {name: values.tolist() for name, values in columns.items()} == {
        "log2fc_1": [1, 0, 0, 0],
        "log2fc_2": [0, -2, 0, 0],
    }


@pytest.mark.parametrize(
    ("effect", "match"),
    [
        (lambda: folds(scld.Effect({"B2M": 1})), "'B2M' is not a gene of this model"),
        (lambda: folds(scld.Effect({"nevr": 1})), "did you mean 'never'"),
        (lambda: folds(scld.Effect({"never": 1})), "no count of gene 'never', so it is never"),
        (lambda: folds(scld.Effect({"a": 1}, {"grup": 1})), "no column 'grup'.*mean 'group'"),
        (lambda: folds(scld.Effect({"a": 1}, {"type": "NK"})), "no cell has {'type': 'NK'}"),
        (lambda: scld.Effect({"a": 11}), "gene 'a': got 11; allowed .* from -10 to 10"),
        (lambda: scld.Effect({"a": float("nan")}), "got nan"),
        (lambda: scld.Effect({"a": "2"}), "got '2'"),
        (lambda: scld.Effect({}), "an effect without genes"),
        (lambda: scld.Effect({"a": 1}, {"type": []}), "'type' is an empty list"),
        (lambda: scld.Effect(["a"]), "log2fc is list; pass a dict"),
        (lambda: check_effects(scld.Effect({"a": 1})), "got Effect; pass a list"),
        (lambda: check_effects(True), "got bool; pass a list"),
        (lambda: check_effects([{"a": 1}]), "pass a list"),
        (lambda: scld.Effect({"a": 1}, {"type": ""}), "'type' is an empty text"),
        (lambda: scld.Effect({"a": 1}, {"gene": "x"}), "'gene' is a column of a table of effects"),
        (
            lambda: effects_of(pd.DataFrame({"gene": ["a", None], "log2fc": [1, 2]})),
            "row 2 has no gene",
        ),
        (
            lambda: effects_of(
                pd.DataFrame({"effect": [1, None], "gene": ["a", "b"], "log2fc": [1, 2]})
            ),
            "row 2 has no effect",
        ),
        (lambda: effects_of(pd.DataFrame({"gene": ["a"]})), "write one row per gene"),
        (
            lambda: effects_of(pd.DataFrame({"gene": ["a", "a"], "log2fc": [1, 2]})),
            "gene 'a' has several rows",
        ),
    ],
)
def test_effects_that_cannot_be_are_one_clear_error(effect, match):
    with pytest.raises(RequestError, match=match):
        effect()


# On generated cells

TABLE = pd.DataFrame({"cell_type": ["B", "T", "NK"] * 200, "group": ["a", "b"] * 300})


def sample(synth, **keywords):
    options = {"obs": TABLE, "seed": 1, "progress": False, "donor": None} | keywords
    options.pop("donor")
    return synth.sample(**options)


def flat(synth):
    """A model whose genes have 0.01 to 100 expected counts in every cell."""
    model = copy.deepcopy(synth._fitted)
    autoencoder = model.generator.autoencoder
    for name in ("linear", "membership", "output.weight", "dispersion_slope"):
        autoencoder.get_parameter(name).data.zero_()
    autoencoder.profiles.zero_()
    means = np.geomspace(0.01, 100, autoencoder.output.bias.numel())
    autoencoder.output.bias.data[:] = autoencoder.output.bias.new_tensor(np.log(means))
    autoencoder.log_dispersion.data.fill_(np.log(3.0))
    library = model.generator.library * 0 + np.log(means.sum())
    generator = replace(model.generator, library=library, discriminator=None)
    flat = copy.copy(synth)
    flat._model = replace(model, generator=generator)
    return flat, means


@pytest.mark.parametrize("log2fc", [-3.0, -1.0, 0.5, 3.0])
def test_the_estimated_fold_change_is_the_effect_from_small_to_large_means(synth, log2fc):
    model, means = flat(synth)
    seen = synth.genes["gene"][synth.genes["seen"]]
    table = pd.DataFrame({"cell_type": ["B"] * 8000, "group": ["a", "b"] * 4000})
    effect = scld.Effect(dict.fromkeys(seen[::2], log2fc), where={"group": "a"})
    cells = model.sample(obs=table, effects=[effect], seed=1, progress=False, post="off")
    counts = cells[:, seen].X.toarray()
    changed, usual = counts[::2], counts[1::2]
    expected = np.where(np.arange(len(seen)) % 2 == 0, 2.0**log2fc, 1.0) * means
    for values, wanted in ((changed, expected), (usual, means)):
        error = np.sqrt((wanted + wanted**2 / 3) / len(values))
        assert (np.abs(values.mean(axis=0) - wanted) < 4.5 * error).all()


def test_genes_without_an_effect_and_other_cells_keep_their_counts_byte_for_byte(synth):
    effect = scld.Effect({"gene_1": 2.0, "gene_7": -3.0}, where={"group": "a"})
    usual, changed = sample(synth), sample(synth, effects=[effect])
    differs = (usual.X != changed.X).toarray()
    assert set(np.flatnonzero(differs.any(axis=0))) == {1, 7}
    assert not differs[TABLE["group"] == "b"].any()
    assert usual.obs_names.equals(changed.obs_names)
    assert (changed.X - usual.X)[:, 1].min() >= 0  # the same random numbers
    assert (changed.X - usual.X)[:, 7].max() <= 0


def test_without_effects_the_twin_is_the_same_byte_for_byte(synth):
    for none in ({"effects": []}, {"effects": [scld.Effect({"gene_1": 0.0})]}, {"depth": 1.0}):
        usual, twin = sample(synth), sample(synth, **none)
        assert usual.X.data.tobytes() == twin.X.data.tobytes()
        assert usual.X.indices.tobytes() == twin.X.indices.tobytes()


@pytest.mark.parametrize("post", ["off", "select"])
def test_expected_counts_follow_the_effects(synth, post):
    effect = scld.Effect({"gene_1": 2.0}, where={"cell_type": ["B", "NK"]})
    usual = sample(synth, mean=True, post=post).layers["mean"]
    changed = sample(synth, mean=True, post=post, effects=[effect]).layers["mean"]
    factor = np.ones(usual.shape)
    factor[TABLE["cell_type"] != "T", 1] = 4
    np.testing.assert_allclose(changed, usual * factor, rtol=1e-5)
    assert (usual[:, 4] == 0).all()  # training saw no count of it


def test_at_a_fixed_depth_the_total_stays_and_ratios_are_the_effects(synth):
    effect = scld.Effect({"gene_1": 3.0})
    usual = sample(synth, mean=True).layers["mean"]
    fixed = sample(synth, mean=True, effects=[effect], fixed_depth=True).layers["mean"]
    np.testing.assert_allclose(fixed.sum(axis=1), usual.sum(axis=1), rtol=1e-4)
    ratio = (fixed[:, 1] / fixed[:, 2]) / (usual[:, 1] / usual[:, 2])
    np.testing.assert_allclose(ratio, 8, rtol=1e-4)
    assert (fixed[:, 2] < usual[:, 2]).all()


def test_batches_of_a_stream_are_the_same_cells(synth):
    effect = scld.Effect({"gene_1": 2.0}, where={"group": "a"})
    options = {"obs": TABLE, "seed": 1, "progress": False, "effects": [effect], "mean": True}
    whole, parts = synth.sample(**options), list(synth.stream(batch_size=100, **options))
    assert [part.n_obs for part in parts] == [100] * 6
    for part in parts:
        same = whole[part.obs_names]
        assert (same.X != part.X).nnz == 0
        np.testing.assert_array_equal(same.layers["mean"], part.layers["mean"])
        assert list(part.var) == ["log2fc_1"]


def test_random_effects_are_on_expressed_genes_half_up_and_half_down(synth):
    effect = synth.random_effect(10, (0.5, 1.5), where={"group": "a"}, least=0.5, seed=3)
    assert effect == synth.random_effect(10, (0.5, 1.5), where={"group": "a"}, least=0.5, seed=3)
    values = np.array(list(effect.log2fc.values()))
    assert (values > 0).sum() == 5
    assert (np.abs(values) >= 0.5).all()
    assert (np.abs(values) <= 1.5).all()
    mean = sample(synth, mean=True).layers["mean"].mean(axis=0)
    assert mean[[int(gene[5:]) for gene in effect.log2fc]].min() > 0.1
    other = synth.random_effect(10, (0.5, 1.5), where={"group": "b"}, least=0.5, seed=3)
    assert set(other.log2fc) != set(effect.log2fc)
    with pytest.raises(RequestError, match="genes have at least 1e\\+06 expected counts"):
        synth.random_effect(3, least=1e6)


def test_genes_of_a_random_effect_are_expressed_in_the_cells_that_it_is_for(synth):
    expected = synth._fitted.expected_counts({"cell_type": "B"})
    usual = synth._fitted.expected_counts({})
    mean = sample(synth, obs=TABLE.assign(cell_type="B"), mean=True, post="off").layers["mean"]
    seen = synth.genes["seen"].to_numpy()
    errors = [np.abs(np.log(some / mean.mean(axis=0)[seen])).mean() for some in (expected, usual)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("size", [0, -1, True, "1", (1, 2, 3), (2, 0.5), (1, np.inf), None, 11])
def test_sizes_that_cannot_be_are_one_clear_error(synth, size):
    with pytest.raises(RequestError, match=r"size: got .* a log2 fold change above 0 and up to 10"):
        synth.random_effect(3, size)


@pytest.mark.parametrize("name", ["fixed_depth", "mean", "one_population"])
def test_what_is_on_or_off_is_true_or_false(synth, name):
    with pytest.raises(RequestError, match=f"{name}: got 'no'; allowed are True and False"):
        sample(synth, **{name: "no"})


def test_an_unknown_keyword_is_named_with_the_nearest(synth):
    with pytest.raises(TypeError, match=r"'efects'.*did you mean 'effects'"):
        sample(synth, efects=[])
