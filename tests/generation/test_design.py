"""The same cells under other labels, and one population."""

import numpy as np
import pandas as pd
import pytest
from sklearn.mixture import GaussianMixture

from scld.errors import RequestError
from scld.generation.population import Population
from scld.kernels.sampling import sample_counts, thin

TABLE = pd.DataFrame({"cell_type": ["B", "T", "NK"] * 200, "donor": [0, 1] * 300})


def sample(synth, **keywords):
    options = {"obs": TABLE, "seed": 1, "progress": False, "post": "off"} | keywords
    return synth.sample(**options)


def test_the_same_cells_under_another_label_are_new_where_the_label_changes(synth):
    usual, twin = sample(synth, mean=True), sample(synth, to={"donor": 1}, mean=True)
    assert (twin.obs["donor"] == 1).all()
    assert twin.obs["cell_type"].tolist() == usual.obs["cell_type"].tolist()
    same = (TABLE["donor"] == 1).to_numpy()
    assert (usual.X[same] != twin.X[same]).nnz == 0
    assert (usual.X[~same] != twin.X[~same]).nnz > 0
    # a cell stays itself: its library size, and its place among the cells of its type
    totals = [cells.layers["mean"].sum(axis=1) for cells in (usual, twin)]
    np.testing.assert_allclose(*totals, rtol=1e-4)
    assert twin.uns["scld"]["to"] == {"donor": ["1"]}


def test_other_labels_with_post_guidance_are_refused(synth):
    with pytest.raises(RequestError, match="to: not with post-guidance"):
        sample(synth, to={"donor": 1}, post="select")
    with pytest.raises(RequestError, match="'dono' is not a label"):
        sample(synth, to={"dono": 1})


def test_one_population_has_the_moments_of_the_latent_points_and_no_structure():
    random = np.random.default_rng(0)
    ends = np.where(random.random(4000) < 0.5, -3.0, 3.0)
    two = np.column_stack([ends + random.normal(size=4000), random.normal(size=4000)])
    import torch

    population = Population.like([two], np.zeros(4000, int))
    noise = torch.from_numpy(random.normal(size=(4000, 2)))
    one = population.points(noise).numpy()
    np.testing.assert_allclose(one.mean(axis=0), two.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(np.cov(one.T), np.cov(two.T), atol=0.4)

    def gain(points):
        fits = [GaussianMixture(k, random_state=0).fit(points) for k in (1, 2)]
        return fits[0].bic(points) - fits[1].bic(points)

    assert gain(two) > 100
    assert gain(one) < 10


def test_one_population_is_asked_of_sample(synth):
    usual, one = sample(synth), sample(synth, one_population=True)
    assert (usual.X != one.X).nnz > 0
    assert one.obs.equals(usual.obs)
    assert (sample(synth, one_population=True).X != one.X).nnz == 0
    few = synth.sample(obs=TABLE[:10], seed=1, progress=False, post="off", one_population=True)
    assert (one.X[:10] != few.X).nnz == 0


def test_thinned_counts_are_binomial():
    counts = sample_counts(np.full((3000, 4), 8.0), np.full(4, 2.0), seed=0)
    counts.data[:] = 10
    kept = thin(counts, np.full(3000, 0.3), seed=5)
    values = np.concatenate([kept.data, np.zeros(counts.nnz - kept.nnz)])
    assert abs(values.mean() - 3) < 4 * np.sqrt(2.1 / counts.nnz)
    assert abs(values.var() - 2.1) < 0.1
    parts = [thin(counts[i : i + 500], np.full(500, 0.3), 5, i) for i in range(0, 3000, 500)]
    assert all((kept[i * 500 : i * 500 + 500] != part).nnz == 0 for i, part in enumerate(parts))
    assert (thin(counts, np.ones(3000), 5) != counts).nnz == 0
    assert kept.data.min() >= 1


def test_columns_of_a_table_are_kept_as_they_can_be_written(synth, tmp_path):
    table = TABLE.assign(
        text="a", number=1.5, flag=True, date=pd.Timestamp("2026-01-01"), gap=["x", None] * 300
    )
    cells = sample(synth, obs=table)
    assert cells.obs["number"].tolist() == table["number"].tolist()
    assert cells.obs["gap"].isna().tolist() == table["gap"].isna().tolist()
    assert cells.obs["date"].astype(str).iloc[0].startswith("2026-01-01")
    cells.write_h5ad(tmp_path / "cells.h5ad")


def test_columns_that_no_file_can_hold_become_text(synth, tmp_path):
    table = TABLE.assign(
        bins=pd.cut(np.arange(600), 3),
        mixed=pd.Categorical([1, "a"] * 300),
        thin=pd.arrays.SparseArray([0, 1] * 300),
    )
    table[7] = "a column named by a number"
    table["self"] = 1.0
    cells = sample(synth, obs=table)
    assert {"bins", "mixed", "thin", "7", "self"} <= set(cells.obs)
    cells.write_h5ad(tmp_path / "cells.h5ad")


def test_columns_that_scld_writes_are_not_kept_from_a_table(synth):
    with pytest.warns(UserWarning, match="'is_doublet' are columns that scld writes"):
        cells = sample(synth, obs=TABLE.assign(is_doublet=True))
    assert "is_doublet" not in cells.obs


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (TABLE.assign(_index=1), "a column '_index' cannot be written"),
        (pd.concat([TABLE, TABLE[["donor"]]], axis=1), "2 columns are named 'donor'"),
    ],
)
def test_tables_that_cannot_be_written_are_one_clear_error(synth, table, match):
    with pytest.raises(RequestError, match=match):
        sample(synth, obs=table)
