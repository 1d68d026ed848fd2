import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
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


def shifts_of(some, codes, names, donors=8):
    peers = {name: np.arange(donors) for name in names if name}
    return some.latent_shifts(codes, names, peers, 0).dense()


def test_latent_means_of_new_donors_have_the_moments_of_the_fitted_ones():
    some = variation()
    points = some.means.points[some.means.combinations[:, 0] == 0].astype(float)
    names = np.array([f"new_{i}" for i in range(4000)])
    codes = np.tile([0, 2], (4000, 1))
    made = points[2] + shifts_of(some, codes, names)
    np.testing.assert_allclose(made.mean(axis=0), points.mean(axis=0), atol=0.08)
    np.testing.assert_allclose(np.cov(made.T), np.cov(points.T), atol=0.15)


def test_what_is_sampling_error_does_not_vary():
    """Means of 5 cells differ by chance alone as much as these donors do."""
    names = np.array([f"new_{i}" for i in range(200)])
    codes = np.tile([0, 2], (200, 1))
    few, many = (shifts_of(variation(cells=cells), codes, names) for cells in (1, 10**6))
    assert few.std(axis=0).max() < 0.8 * many.std()


def test_a_new_donor_is_the_same_in_every_type_and_table():
    some = variation()
    assert some.weights("new_1", 0).tolist() == some.weights("new_1", 0).tolist()
    assert some.weights("new_1", 0).tolist() != some.weights("new_2", 0).tolist()
    assert some.weights("new_1", 0).tolist() != some.weights("new_1", 1).tolist()
    names, codes = np.array(["new_1", "new_1", ""]), np.array([[0, 2], [1, 2], [0, 2]])
    peers = {"new_1": np.arange(8)}
    one, other, none = some.profile_weights(names, peers, 0).dense()
    np.testing.assert_array_equal(one, other)
    assert abs(one.sum() - 1) < 1e-5
    assert np.isnan(none).all()
    assert not shifts_of(some, codes, names)[2].any()


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
    starts, peers = variation.starts(table, seed=0)
    starts = starts["donor"]
    assert "5" not in set(starts)
    assert all(found.tolist() == [0, 1, 2, 3, 4] for found in peers.values())
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


# Generated


def log_shares(cells, donors):
    """Log of the shares of genes in the expected counts of each donor."""
    mean = pd.DataFrame(cells.layers["mean"]).groupby(np.asarray(donors, str)).mean()
    return np.log(mean.div(mean.sum(axis=1), axis=0).loc[:, mean.sum() > 0])


@pytest.fixture(scope="module")
def varied():
    """Fitted for longer on six donors whose genes differ, half of them in each condition."""
    random, cells = np.random.default_rng(0), make_cells(3000, 40)
    donor = random.integers(0, DONORS, 3000)
    factors = np.exp(random.normal(0, 0.5, (DONORS, 40)))
    factors[:3, 10:20] *= 0.25  # the condition
    counts = random.poisson(3 * cells.X.toarray() * factors[donor]).astype(np.float32)
    counts[:, 0] += 1
    cells.X = sp.csr_matrix(counts)
    cells.obs["donor"] = [f"d{i}" for i in donor]
    cells.obs["condition"] = np.where(donor < 3, "control", "treated")
    training = {"intervals": 20, "steps": 100}
    sizes = {"autoencoder": {"latent": 6, "width": 32}, "denoiser": {"width": 32}}
    sizes |= {"autoencoder_training": training, "denoiser_training": training}
    config = scld.Config.from_dict(sizes)
    labels = {"alike": ["cell_type", "donor"], "nested": ["cell_type", "donor", "condition"]}
    return {
        name: scld.Synthesizer(some, config=config).fit(cells, progress=False)
        for name, some in labels.items()
    }


def test_genes_vary_between_new_donors_as_between_fitted_ones(varied):
    synth, donors = varied["alike"], np.repeat([f"d{i}" for i in range(DONORS)], 100)
    options = {"seed": 1, "progress": False, "mean": True}
    fitted = synth.sample(obs=pd.DataFrame({"cell_type": "B", "donor": donors}), **options)
    table = synth.donor_table(60, 50, where={"cell_type": "B"}, seed=1)
    new = synth.sample(obs=table, new_donors="donor", **options)
    one, other = log_shares(fitted, donors), log_shares(new, table["donor"])
    ratio = other.var(ddof=1).mean() / one.var(ddof=1).mean()
    assert 0.6 < ratio < 1.7
    assert np.corrcoef(one.var(ddof=1), other.var(ddof=1))[0, 1] > 0.7
    error = np.sqrt(one.var(ddof=1) / DONORS + other.var(ddof=1) / 60)
    assert (np.abs(one.mean() - other.mean()) < 3.5 * error).mean() > 0.9


def test_a_new_donor_has_the_condition_that_it_is_asked_for(varied):
    """Each fitted donor has one condition, so the condition could be taken for the donor."""
    synth, options = varied["nested"], {"seed": 1, "progress": False, "mean": True}
    real = {"control": ["d0", "d1", "d2"], "treated": ["d3", "d4", "d5"]}
    levels = {}
    for condition, names in real.items():
        table = synth.donor_table(20, 50, where={"condition": condition}, name=condition, seed=1)
        assert set(table["condition"]) == {condition}
        new = log_shares(synth.sample(obs=table, new_donors="donor", **options), table["donor"])
        own = pd.DataFrame({"donor": np.repeat(names, 100), "condition": condition})
        fitted = log_shares(synth.sample(obs=own, **options), own["donor"])
        levels[condition] = (new.mean(), fitted.mean())
    new, fitted = (levels["treated"][i] - levels["control"][i] for i in range(2))
    assert fitted[10:20].mean() > 0.4
    assert abs(new[10:20].mean() - fitted[10:20].mean()) < 0.35


def test_without_a_condition_named_a_new_donor_has_one_as_fitted_ones_do(varied):
    table = varied["nested"].donor_table(12, 30, seed=1)
    assert (table.groupby("donor")["condition"].nunique() == 1).all()
    assert table["condition"].nunique() == 2


def test_one_population_keeps_what_is_different_between_new_donors(varied):
    table = varied["alike"].donor_table(30, 60, where={"cell_type": "B"}, seed=1)
    options = {"obs": table, "new_donors": "donor", "seed": 1, "progress": False, "mean": True}
    usual, one = (
        log_shares(varied["alike"].sample(**options, one_population=flag), table["donor"])
        for flag in (False, True)
    )
    assert 0.6 < one.var(ddof=1).mean() / usual.var(ddof=1).mean() < 1.6


def test_donors_that_share_no_labels_show_no_variation(config):
    cells = make_cells(300)
    cells.obs["donor"] = (np.arange(300) // 50).astype(str)
    cells.obs["batch"] = cells.obs["donor"]
    synth = scld.Synthesizer(["cell_type", "donor", "batch"], config=config)
    synth.fit(cells, progress=False)
    with pytest.raises(RequestError, match="fewer than two donors of training have the same other"):
        synth.donor_table(2, 30)
