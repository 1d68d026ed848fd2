import numpy as np
import pandas as pd
import pytest
from toy import TINY, make_cells

import scld
from scld.errors import RequestError
from scld.generation.donors import DonorVariation, _shares
from scld.generation.latent_shift import CombinationMeans
from scld.schema import Schema

DONORS = 6


@pytest.fixture(scope="module")
def many():
    """Fitted on six donors; donor 5 has one type alone."""
    cells = make_cells(1200)
    random = np.random.default_rng(0)
    cells.obs["donor"] = random.integers(0, DONORS, 1200).astype(str)
    cells = cells[(cells.obs["donor"] != "5") | (cells.obs["cell_type"] == "B")].copy()
    config = scld.Config.from_dict(TINY)
    return scld.Synthesizer(["cell_type", "donor"], config=config).fit(cells, progress=False)


def variation(donors=8, dims=3, cells=10**6, seed=0):
    """Two types and donors that differ by normal numbers, of so many cells that they are known."""
    random = np.random.default_rng(seed)
    obs = pd.DataFrame({"type": ["B", "T"] * donors, "donor": np.repeat(np.arange(donors), 2)})
    schema = Schema.of(obs, ["type", "donor"])
    points = random.normal(size=(2 * donors, dims)).astype(np.float32)
    counts = np.full(len(schema.cells), cells)
    means = CombinationMeans(schema.combinations, counts, points)
    return DonorVariation(Schema(schema.labels, schema.combinations, counts), means, "donor")


def test_new_donors_have_the_mean_and_covariance_of_the_fitted_ones():
    some = variation()
    points = some.means.points[some.means.combinations[:, 0] == 0].astype(float)
    names = np.array([f"new_{i}" for i in range(4000)])
    codes = np.tile([0, 2], (4000, 1))
    made = points[2] + some.latent_shifts(codes, names, seed=0).dense()
    np.testing.assert_allclose(made.mean(axis=0), points.mean(axis=0), atol=0.08)
    np.testing.assert_allclose(np.cov(made.T), np.cov(points.T), atol=0.15)


def test_what_is_sampling_error_does_not_vary():
    """Means of 5 cells differ by chance alone as much as these donors do."""
    names = np.array([f"new_{i}" for i in range(200)])
    codes = np.tile([0, 2], (200, 1))
    few = variation(cells=1).latent_shifts(codes, names, 0).dense()
    assert few.std(axis=0).max() < 0.8 * variation().latent_shifts(codes, names, 0).dense().std()


def test_a_new_donor_is_the_same_in_every_type_and_table():
    some = variation()
    assert some.weights("new_1", 0).tolist() == some.weights("new_1", 0).tolist()
    assert some.weights("new_1", 0).tolist() != some.weights("new_2", 0).tolist()
    assert some.weights("new_1", 0).tolist() != some.weights("new_1", 1).tolist()
    profiles = np.random.default_rng(0).normal(size=(8, 5))
    names, codes = np.array(["new_1", "new_1", ""]), np.array([[0, 2], [1, 2], [0, 2]])
    one, other, none = some.logit_shifts(profiles, codes, names, 0).dense()
    np.testing.assert_array_equal(one, other)
    assert not none.any()
    assert not some.latent_shifts(codes, names, 0).dense()[2].any()


def test_compositions_vary_as_those_of_fitted_donors_do():
    random = np.random.default_rng(0)
    cells = 1e5 * random.dirichlet([20, 10, 5], size=10)
    ratios = np.log(cells) - np.log(cells).mean(axis=1, keepdims=True)
    made = np.stack([_shares(cells, random.standard_normal(10)) for _ in range(3000)])
    np.testing.assert_allclose(made.sum(axis=1), 1)
    logs = np.log(made) - np.log(made).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(logs.mean(axis=0), ratios.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(logs.std(axis=0), ratios.std(axis=0, ddof=1), rtol=0.1)


def test_a_table_of_new_donors_is_generated(many):
    table = many.donor_table(4, 50, seed=3)
    assert table["donor"].value_counts().to_dict() == {f"new_{i}": 50 for i in range(1, 5)}
    table["group"] = np.where(table["donor"].isin(["new_1", "new_2"]), "a", "b")
    effect = scld.Effect({"gene_1": 1.0}, where={"donor": "new_1"})
    options = {"obs": table, "new_donors": "donor", "seed": 3, "progress": False, "mean": True}
    cells = many.sample(effects=[effect], **options)
    for column in ("cell_type", "donor", "group"):
        assert cells.obs[column].astype(str).tolist() == table[column].astype(str).tolist()
    usual = many.sample(**options)
    ratio = cells.layers["mean"][:, 1] / usual.layers["mean"][:, 1]
    np.testing.assert_allclose(ratio, np.where(table["donor"] == "new_1", 2.0, 1.0), rtol=1e-5)


def test_new_donors_differ_and_fitted_ones_stay_what_they_are(many):
    kinds = ["new_1", "new_2", "0", "1"]
    table = pd.DataFrame({"cell_type": "T", "donor": np.repeat(kinds, 100)})
    options = {"seed": 3, "progress": False, "mean": True}
    cells = many.sample(obs=table, new_donors="donor", **options)
    fitted = many.sample(obs=table.assign(donor=table["donor"].replace("new_.", "0", regex=True)))
    assert fitted.n_obs == 400
    usual = many.sample(obs=table.assign(donor=np.repeat(["2", "2", "0", "1"], 100)), **options)
    assert (cells.X[200:] != usual.X[200:]).nnz == 0
    means = [cells.layers["mean"][i * 100 : (i + 1) * 100].mean(axis=0) for i in range(2)]
    assert np.abs(np.log(means[0][:4] / means[1][:4])).max() > 0.01


def test_a_new_donor_starts_from_a_fitted_one_that_has_its_types(many):
    variation = DonorVariation(many.schema, many._fitted.generator.means, "donor")
    table = pd.DataFrame({"cell_type": "T", "donor": [f"new_{i}" for i in range(50)]})
    starts = variation.starts(table, seed=0)["donor"]
    assert "5" not in set(starts)
    assert starts.nunique() > 2


def test_within_the_categories_asked(many):
    table = many.donor_table(2, 30, where={"cell_type": ["B", "NK"]})
    assert set(table["cell_type"]) == {"B", "NK"}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda s: s.donor_table(2, 30, label="dono"), "'dono' is not a label.*mean 'donor'"),
        (lambda s: s.donor_table(0, 30), "donors: got 0"),
        (lambda s: s.donor_table(2, 0), "cells: got 0"),
        (lambda s: s.donor_table(2, 5, where={"donor": "1"}), "leave it out"),
        (lambda s: s.sample(5, new_donors="donor"), "no column 'donor' in obs; pass a table"),
        (
            lambda s: s.sample(
                obs=s.donor_table(2, 5), new_donors="donor", to={"donor": "1"}, post="off"
            ),
            "to: 'donor' is the label of the new donors",
        ),
    ],
)
def test_requests_that_cannot_be_are_one_clear_error(many, call, match):
    with pytest.raises(RequestError, match=match):
        call(many)


def test_two_donors_show_no_variation(synth):
    with pytest.raises(RequestError, match=r"'donor' has 2 categories; at least 3 donors"):
        synth.donor_table(2, 30)
