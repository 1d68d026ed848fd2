from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import scld
from scld.errors import RequestError
from scld.generation.artefacts import _PARTNERS

TABLE = pd.DataFrame(
    {"cell_type": ["B", "T", "NK"] * 300, "donor": [0, 1] * 450, "lane": ["x", "y", "y"] * 300}
)


def sample(synth, artefacts=None, **keywords):
    return synth.sample(obs=TABLE, seed=1, progress=False, artefacts=artefacts, **keywords)


def design(synth, **keywords):
    return synth._fitted.design(None, None, TABLE, False, {"seed": 1, **keywords})


def test_nothing_changes_by_default(synth):
    usual, same = sample(synth), sample(synth, scld.Artefacts())
    assert (usual.X != same.X).nnz == 0
    assert list(same.obs) == list(usual.obs)


def test_a_doublet_is_the_sum_of_two_cells(synth):
    usual, cells = sample(synth), sample(synth, scld.Artefacts(doublets=0.2))
    is_doublet = cells.obs["is_doublet"].to_numpy()
    assert 0.15 < is_doublet.mean() < 0.25
    assert (cells.X != usual.X)[~is_doublet].nnz == 0
    found, options = design(synth, artefacts=scld.Artefacts(doublets=0.2))
    partners = replace(found, request=found.droplets.partners, droplets=None)
    second = synth._fitted.sample(partners, replace(options, progress=False))
    assert partners.request.first == _PARTNERS
    assert (cells.X[is_doublet] != usual.X[is_doublet] + second.X).nnz == 0
    names = [f"{kind}, {donor}" for kind, donor in second.obs[["cell_type", "donor"]].values]
    assert cells.obs["doublet_of"][is_doublet].tolist() == names
    assert cells.obs["doublet_of"][~is_doublet].isna().all()


def test_doublets_form_within_and_between_the_columns_asked(synth):
    artefacts = scld.Artefacts(
        doublets=0.5, doublets_within=["donor"], doublets_between=["cell_type"]
    )
    obs = sample(synth, artefacts).obs
    obs = obs[obs["is_doublet"]]
    second = obs["doublet_of"].astype(str).str.split(", ", expand=True)
    assert (second[0] != obs["cell_type"].astype(str)).all()
    assert (second[1] == obs["donor"].astype(str)).all()
    alone = sample(synth, scld.Artefacts(doublets=0.5, doublets_within=["cell_type"])).obs
    alone = alone[alone["is_doublet"]]
    same = alone["doublet_of"].astype(str).str.startswith(alone["cell_type"].iloc[0])
    assert same[alone["cell_type"] == alone["cell_type"].iloc[0]].all()


def test_ambient_counts_are_the_share_asked_and_have_the_profile(synth):
    profile = {"gene_1": 3.0, "gene_2": 1.0}
    usual = sample(synth)
    cells = sample(synth, scld.Artefacts(ambient=(0.1, 0.3), ambient_profile=profile))
    added = (cells.X - usual.X).toarray()
    assert (added >= 0).all()
    assert set(np.flatnonzero(added.any(axis=0))) == {1, 2}
    assert abs(added[:, 1].sum() / added.sum() - 0.75) < 0.02
    fraction = cells.obs["ambient_fraction"].to_numpy()
    assert fraction.min() > 0.1
    assert fraction.max() < 0.3
    totals = np.asarray(usual.X.sum(axis=1)).ravel()
    expected = totals * fraction / (1 - fraction)
    assert abs(added.sum() - expected.sum()) < 5 * np.sqrt(expected.sum())


def test_ambient_rna_is_the_mean_of_training_by_default(synth):
    usual, cells = sample(synth), sample(synth, scld.Artefacts(ambient=0.5))
    added = np.asarray((cells.X - usual.X).sum(axis=0)).ravel()
    mean = synth._fitted.generator.autoencoder.mean_log_p.exp().numpy()
    seen = synth.genes["seen"].to_numpy()
    assert np.corrcoef(added[seen], mean)[0, 1] > 0.99
    assert (added[~seen] == 0).all()


def test_empty_droplets_come_last_without_labels(synth):
    cells = sample(synth, scld.Artefacts(empty=500, empty_counts=20), mean=True)
    empty = cells[cells.obs["is_empty"].to_numpy()]
    names = [name.rpartition("_empty_") for name in empty.obs_names]
    assert [number for _, _, number in names] == [str(i) for i in range(500)]
    assert {f"{prefix}_0" for prefix, _, _ in names} == {cells.obs_names[0]}
    assert cells.obs_names.is_unique
    assert empty.obs[["cell_type", "donor", "lane"]].isna().all(axis=None)
    assert (empty.obs["ambient_fraction"] == 1).all()
    totals = np.asarray(empty.X.sum(axis=1)).ravel()
    assert abs(totals.mean() - 20) < 1
    assert (empty.layers["mean"] == 0).all()
    assert (cells.X[:900] != sample(synth).X).nnz == 0


def test_expected_counts_are_those_of_the_cell_without_artefacts(synth):
    artefacts = scld.Artefacts(doublets=0.3, ambient=0.2)
    mean = sample(synth, artefacts, mean=True).layers["mean"]
    np.testing.assert_array_equal(mean, sample(synth, mean=True).layers["mean"])


def test_batches_of_a_stream_and_files_are_the_same(synth, tmp_path):
    artefacts = scld.Artefacts(doublets=0.3, ambient=0.2, empty=70)
    whole = sample(synth, artefacts)
    parts = synth.stream(obs=TABLE, seed=1, progress=False, artefacts=artefacts, batch_size=123)
    for part in parts:
        assert (whole[part.obs_names].X != part.X).nnz == 0
        assert whole.obs.loc[part.obs_names].equals(part.obs)
    whole.write_h5ad(tmp_path / "cells.h5ad")


def test_partners_have_the_effects_of_their_own_row(synth):
    effect = scld.Effect({"gene_1": 5.0}, where={"lane": "x"})
    artefacts = scld.Artefacts(doublets=1.0, doublets_within=["lane"])
    usual = sample(synth, artefacts).X.toarray()[:, 1]
    changed = sample(synth, artefacts, effects=[effect]).X.toarray()[:, 1]
    x = (TABLE["lane"] == "x").to_numpy()
    assert changed[x].mean() > 10 * usual[x].mean()
    np.testing.assert_array_equal(changed[~x], usual[~x])


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"doublets": 1.5}, "doublets: got 1.5; allowed are numbers from 0 to 1"),
        ({"doublets": True}, "doublets: got True"),
        ({"ambient": 1.0}, "ambient: got 1.0; allowed are numbers from 0 to 0.9"),
        ({"ambient": (0.3, 0.1)}, "ambient: got 0.1; allowed are numbers from 0.3"),
        ({"ambient": "much"}, "a number or an interval"),
        ({"empty": -1}, "empty: got -1"),
        ({"empty_counts": 0}, "empty_counts: got 0"),
        ({"doublets_within": "donor"}, r"pass a list, \['donor'\]"),
        ({"doublets": 0.5, "doublets_within": ["lan"]}, "no column 'lan'.*did you mean 'lane'"),
        ({"doublets": 1, "doublets_between": ["one"]}, "no column 'one'"),
        ({"ambient_profile": {"gene_x": 1.0}, "ambient": 0.1}, "gene 'gene_x' is unknown"),
        ({"ambient_profile": {"gene_1": -1.0}, "ambient": 0.1}, "weights of 0 or more"),
        (
            {
                "doublets": 1,
                "doublets_within": ["cell_type"],
                "doublets_between": ["cell_type"],
            },
            "can form a doublet with one of",
        ),
    ],
)
def test_artefacts_that_cannot_be_are_one_clear_error(synth, keywords, match):
    with pytest.raises(RequestError, match=match):
        sample(synth, scld.Artefacts(**keywords))
    with pytest.raises(RequestError, match="artefacts: got float"):
        sample(synth, 0.1)
